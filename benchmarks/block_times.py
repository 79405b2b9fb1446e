"""Where does a block of episodes spend its processor time, and is another checkout faster with the same bits?

For each shipped policy and the expert: processor seconds of one block of 50 validation episodes, and how many
of them its matrix products and convolutions, everything else of the policy, and the worlds take. With
`--before DIR`, the block runs in turns in both checkouts, and their episodes are compared to the bit. The
products are timed by the wall clock, so only an idle machine tells them from the rest.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parents[1]
NAMES = ("bc", "bet", "vqbet", "act", "diffusion", "expert")
#: What each process runs: a block to warm up, then one for each line that it reads; it answers in JSON.
BLOCK = """
import hashlib, json, sys, time
import torch
from il_bench.policies.checkpoint import load_policy
from il_bench.rollout import rollout
from torch.profiler import ProfilerActivity, profile

PRODUCTS = ("addmm", "mm", "bmm", "baddbmm", "mkldnn_convolution")
policy = load_policy(sys.argv[1])
asked = 0.0
def timed(batch, select=policy.select_action):
    global asked
    start = time.process_time()
    try:
        return select(batch)
    finally:
        asked += time.process_time() - start
object.__setattr__(policy, "select_action", timed)
rollout(policy, range(100_050, 100_100))
print(flush=True)
for line in sys.stdin:
    asked, start = 0.0, time.process_time()
    done = rollout(policy, range(100_000, 100_050))
    whole = time.process_time() - start
    bits = hashlib.sha256(done.n_steps.tobytes() + done.max_reward.tobytes() + done.final_coverage.tobytes())
    found = {"whole": whole, "policy": asked, "bits": bits.hexdigest(), "products": 0.0}
    if "products" in line:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            rollout(policy, range(100_000, 100_050))
        mine = [each for each in seen.key_averages() if each.key.removeprefix("aten::") in PRODUCTS]
        found["products"] = sum(each.self_cpu_time_total for each in mine) / 1e6
    print(json.dumps(found), flush=True)
"""


class Worker:
    """A process that has loaded one policy in one checkout, and waits."""

    def __init__(self, checkout: Path, name: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "SDL_VIDEODRIVER": "dummy"}
        self._process = subprocess.Popen(
            [str(checkout / ".venv/bin/python"), "-W", "ignore", "-c", BLOCK, name],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process ended with status {self._process.wait()}")
        return line

    def block(self, *, products: bool = False) -> dict[str, Any]:
        """Run the block once."""
        assert self._process.stdin is not None
        self._process.stdin.write("products\n" if products else "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._answer())
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(checkouts: dict[str, Path], name: str, rounds: int) -> dict[str, dict[str, Any]]:
    """The quickest of some blocks in each checkout, in turns."""
    workers = {which: Worker(checkout, name) for which, checkout in checkouts.items()}
    blocks: dict[str, list[dict[str, Any]]] = {which: [] for which in workers}
    for turn in range(rounds):
        for which, worker in workers.items():
            blocks[which].append(worker.block(products=turn == 0))
    for worker in workers.values():
        worker.close()
    quickest = {which: min(each, key=lambda block: block["whole"]) for which, each in blocks.items()}
    return {which: best | {"products": blocks[which][0]["products"]} for which, best in quickest.items()}


def main(
    before: Annotated[Path | None, typer.Option(help="Another checkout with a .venv, to time too.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(NAMES)}; repeatable.")] = None,
    rounds: Annotated[int, typer.Option(help="Blocks of each; the quickest counts.")] = 5,
) -> None:
    """Time blocks of the shipped policies."""
    checkouts = {"now": HERE} if before is None else {"before": before.absolute(), "now": HERE}
    table = Table(
        "policy", "", "processor s a block", "products", "rest of the policy", "worlds", "ratio", "episodes"
    )
    for name in policy or NAMES:
        found = measure(checkouts, name, rounds)
        for which, each in found.items():
            rest, worlds = each["policy"] - each["products"], each["whole"] - each["policy"]
            first = next(iter(found.values()))
            last = ("", "")
            if which == "now" and before is not None:
                same = "same to the bit" if each["bits"] == first["bits"] else "DIFFERENT"
                last = (f"{first['whole'] / each['whole']:.2f}", same)
            parts = (f"{value:.3f}" for value in (each["whole"], each["products"], rest, worlds))
            table.add_row(name, which, *parts, *last)
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(typer.run(main))
