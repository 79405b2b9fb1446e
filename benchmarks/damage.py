"""Does the regression gate notice a damaged checkpoint, and leave an undamaged one alone?

Makes copies of a shipped policy: saved again unchanged, with weight noise that costs about 10 points of
success_rate (found by bisection on validation seeds), with the state's and the action's normalisation
statistics swapped, and with one layer zeroed. Runs the success suite on each against baselines.json and
prints what the gate said and pytest's exit status.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import typer
from rich.console import Console
from rich.table import Table

from il_bench.policies.checkpoint import LoadedPolicy, load_policy
from il_bench.rollout import rollout

VALIDATION = range(100_000, 100_500)
COST = 0.10
BISECTIONS = 6

Damage = Callable[[LoadedPolicy], None]


def save(policy: LoadedPolicy, folder: Path) -> Path:
    """Write a ``pretrained_model`` folder."""
    policy.policy.save_pretrained(folder)
    policy.preprocessor.save_pretrained(folder)
    policy.postprocessor.save_pretrained(folder)
    return folder


def noise(scale: float) -> Damage:
    """Add to every weight a normal draw of ``scale`` times its tensor's standard deviation."""

    def damage(policy: LoadedPolicy) -> None:
        generator = torch.Generator().manual_seed(0)
        for parameter in policy.policy.parameters():
            if parameter.ndim > 1:
                draw = torch.randn(parameter.shape, generator=generator)
                parameter.data += scale * parameter.data.std() * draw

    return damage


def swap_statistics(policy: LoadedPolicy) -> None:
    """Give the state the action's statistics, and the action the state's."""
    for pipeline in (policy.preprocessor, policy.postprocessor):
        for step in pipeline.steps:
            statistics = getattr(step, "_tensor_stats", None)
            if statistics:
                state, action = statistics["observation.state"], statistics["action"]
                statistics["observation.state"], statistics["action"] = action, state


def zero_layer(policy: LoadedPolicy) -> None:
    """Zero the weights of the middle one of the policy's layers."""
    matrices = [p for p in policy.policy.parameters() if p.ndim > 1]
    matrices[len(matrices) // 2].data.zero_()


def success_rate(name: str, damage: Damage, folder: Path, workers: int) -> float:
    """On validation seeds."""
    policy = load_policy(name)
    damage(policy)
    return rollout(partial(load_policy, str(save(policy, folder))), VALIDATION, workers=workers).success_rate


def costly_noise(name: str, folder: Path, workers: int) -> tuple[float, float]:
    """The scale of noise that costs about COST, and what it cost."""
    whole = rollout(partial(load_policy, name), VALIDATION, workers=workers).success_rate
    low, high = 0.0, 0.5
    for _ in range(BISECTIONS):
        scale = (low + high) / 2
        cost = whole - success_rate(name, noise(scale), folder, workers)
        print(
            f"  noise {scale:.4f}: costs {100 * cost:.1f} points on {len(VALIDATION)} validation seeds",
            flush=True,
        )
        if abs(cost - COST) < 0.015:
            break
        low, high = (scale, high) if cost < COST else (low, scale)
    return scale, cost


def gate(name: str, folder: Path, episodes: int) -> tuple[str, float, int]:
    """Run the success suite on ``folder`` as a new ``name``: baseline decision, success_rate, exit status."""
    with tempfile.TemporaryDirectory() as report:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--benchmark",
            "--pyargs",
            "il_bench.suite",
            "-m",
            "success",
        ]
        command += ["--il-policy", f"{name}={folder}", "--il-episodes", str(episodes), "--il-report", report]
        status = subprocess.run([*command, "-q", "-p", "no:cacheprovider"], capture_output=True).returncode
        row = json.loads((Path(report) / "report.json").read_text())["success"][0]
    return row["baseline"]["decision"], row["success_rate"]["estimate"], status


def main(
    policy: Annotated[str, typer.Option(help="The shipped policy to damage.")] = "bc",
    episodes: Annotated[int, typer.Option(help="Test seeds of each run of the suite.")] = 1000,
    workers: Annotated[int, typer.Option(help="Processes of the bisection.")] = 2,
) -> None:
    """Damage a shipped policy and see what the gate says."""
    table = Table(
        "damage", "success_rate", "against baseline", "exit status", title=f"{policy}, {episodes} test seeds"
    )
    with tempfile.TemporaryDirectory() as scratch:
        scale, cost = costly_noise(policy, Path(scratch) / "noise-search", workers)
        damages: dict[str, Damage] = {
            "none, saved again": lambda _: None,
            f"weight noise {scale:.3f} ({100 * cost:.0f} points on validation)": noise(scale),
            "state and action statistics swapped": swap_statistics,
            "one layer zeroed": zero_layer,
        }
        for number, (label, damage) in enumerate(damages.items()):
            loaded = load_policy(policy)
            damage(loaded)
            decision, rate, status = gate(policy, save(loaded, Path(scratch) / str(number)), episodes)
            table.add_row(label, f"{rate:.3f}", decision, str(status))
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
