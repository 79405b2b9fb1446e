"""How long a robot waits for each shipped policy on a GPU: one script, no network, eight minutes at most.

Every policy eager, compiled and as CUDA graphs, for one robot and for 64: p50, p90 and p99 of a new chunk,
the first call (compilation included), peak memory, and the share of calls that miss the deadline of a control
loop at 10, 30 and 50 Hz. Then rollouts' episodes a second with the policy on the device. It says what failed,
and what there was no time for. The same script runs on the CPU, where it is tested.
"""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

os.environ.update(HF_HUB_OFFLINE="1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from il_bench import machine, zoo
from il_bench.errors import IlBenchError
from il_bench.latency.calls import policy_call
from il_bench.latency.device import Device, device_for, inference_on_one_thread
from il_bench.latency.measure import measure
from il_bench.policies.checkpoint import load_policy
from il_bench.protocol import BLOCK_SIZE, SEED_STARTS, Mode, TimedCall
from il_bench.rollout import run_block

HZ = (10, 30, 50)
BATCHES = (1, 64)
SHARE_OF_CALLS = 0.8  # of the seconds; the rest is for rollouts


def timed(name: str, batch: int, mode: str, device: Device, seconds: float) -> dict[str, Any]:
    """The row of one policy, batch and mode."""
    policy = load_policy(name, device=device.name)
    with inference_on_one_thread():
        call = policy_call(policy, TimedCall.NEW_CHUNK, batch, mode=mode, device=device)
        device.reset_peak_memory()
        found = measure(call.call, device, prepare=call.prepare, seconds=seconds)
        peak = device.peak_memory_mb()
    late = {f"late_{hz}_hz": float(np.mean(np.array(found.times) > 1.0 / hz)) for hz in HZ}
    percentiles = {f"p{100 * q:.0f}_ms": found.percentile(q) for q in (0.5, 0.9, 0.99)}
    return {
        "n": found.n,
        **{key: None if value is None else 1e3 * value for key, value in percentiles.items()},
        "first_call_ms": 1e3 * found.warm_up.first_s,
        "peak_memory_mb": peak,
        **late,
    }


def rolled_out(name: str, device: Device) -> dict[str, Any]:
    """Episodes a second of one block of validation seeds, after a first call that warms up."""
    policy = load_policy(name, device=device.name)
    call = policy_call(policy, TimedCall.NEW_CHUNK, BLOCK_SIZE, device=device)
    call.prepare()
    call.call()
    start = time.perf_counter()
    found = run_block(policy, np.arange(SEED_STARTS["validation"], SEED_STARTS["validation"] + BLOCK_SIZE))
    taken = time.perf_counter() - start
    return {"episodes_per_second": len(found.seeds) / taken, "success_rate": float(found.success.mean())}


def attempt(row: dict[str, Any], until: float, work: Any) -> dict[str, Any]:
    """The row with what `work` found, or with why it found nothing."""
    if time.monotonic() > until:
        return {**row, "not_run": "no time was left"}
    try:
        return row | work()
    except IlBenchError as error:
        return {**row, "not_run": str(error)}
    except Exception as error:  # a compiler that is missing, a device out of memory: the other rows go on
        return {**row, "not_run": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200}"}


def shown(rows: list[dict[str, Any]], title: str, console: Console) -> None:
    """Print rows as a table, and what did not run below it."""
    ran = [row for row in rows if "not_run" not in row]
    if ran:
        table = Table(*ran[0], title=title)
        for row in ran:
            cells = (
                "-" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()
            )
            table.add_row(*cells)
        console.print(table)
    for row in rows:
        if "not_run" in row:
            names = ", ".join(str(value) for key, value in row.items() if key != "not_run")
            console.print(f"not run: {names}: {row['not_run']}", markup=False, highlight=False)


def main(
    device: Annotated[str, typer.Option(help="cuda, cuda:1, mps, cpu.")] = "cuda",
    policy: Annotated[list[str] | None, typer.Option(help="Default: every shipped one.")] = None,
    mode: Annotated[list[Mode] | None, typer.Option(help="Default: every one.")] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="For all of it, about.")] = 420.0,
    output: Annotated[Path | None, typer.Option(help="Write the rows to this JSON file too.")] = None,
) -> None:
    """Time every policy on a device, and print two tables."""
    start = time.monotonic()
    machine.check_device(device)
    where, names = device_for(device), list(policy or zoo.shipped())
    modes = mode or (Mode.EAGER, Mode.CUDA_GRAPH, Mode.COMPILE)  # what takes longest comes last
    chosen = [(each, batch, name) for each in modes for batch in BATCHES for name in names]
    until, rows = start + SHARE_OF_CALLS * seconds, []
    for number, (each, batch, name) in enumerate(chosen):
        row = {"policy": name, "batch": batch, "mode": str(each)}
        share = max(0.1, min(3.0, 0.5 * (until - time.monotonic()) / (len(chosen) - number)))
        rows.append(attempt(row, until, lambda n=name, b=batch, m=each, s=share: timed(n, b, m, where, s)))
        torch.compiler.reset()
    rollouts = [
        attempt({"policy": name, "batch": BLOCK_SIZE}, start + seconds, lambda n=name: rolled_out(n, where))
        for name in names
    ]
    console = Console(width=160)
    shown(rows, f"a new chunk on {where.name}: ms, and the share of calls that miss a deadline", console)
    shown(rollouts, f"rollouts with the policy on {where.name}", console)
    if output is not None:
        found = {
            "environment": machine.describe(),
            "state": where.state(),
            "calls": rows,
            "rollouts": rollouts,
        }
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        typer.run(main)
    except IlBenchError as error:
        raise SystemExit(str(error)) from None
