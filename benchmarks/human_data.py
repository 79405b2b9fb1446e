"""Each policy on both sources of demonstrations, as a table, from the episodes that are kept: none is run.

Run by `make human-table`; `make train-human` trains on the human demonstrations and measures.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from il_bench import zoo
from il_bench.gate import baselines
from il_bench.gate.measured import MeasuredBaseline
from il_bench.gate.verdict import PolicyGates
from il_bench.protocol import KEYPOINTS, SUCCESS_COVERAGE
from il_bench.rollout.metrics import METRICS

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "human-data.json"
TRAINED = HERE / "results" / "human-data"
POLICIES = ("bc", "bet", "vqbet", "act", "diffusion")
#: Of the policies that were trained on the demonstrations as people made them.
AS_MADE = "as-made"


class Measured(NamedTuple):
    """A policy's episodes, and what is noted of its training."""

    policy: str
    source: str
    baseline: MeasuredBaseline
    training: Path

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        outcomes = self.baseline.outcomes
        estimates = PolicyGates(self.policy).verdict(outcomes).estimates
        success, reward = (
            METRICS[name].text(*estimates[name], digits=3) for name in ("success_rate", "mean_max_reward")
        )
        failed = outcomes.max_reward[~outcomes.success]
        noted = json.loads(self.training.read_text())
        return (
            f"`{self.policy}`",
            self.source,
            success,
            reward,
            str(len(failed)),
            f"{SUCCESS_COVERAGE * np.median(failed):.3f}" if len(failed) else "",
            f"{noted['step']:,}",
            f"{noted['core_seconds'] / 3600:.2g}",
        )


HEAD = (
    "policy",
    "trained on",
    "success_rate",
    "mean_max_reward",
    "failures",
    "they stop at",
    "training steps",
    "processor hours",
)


def measured() -> Iterator[Measured]:
    """The lines: of each policy the shipped one and that on the human data, and those on them as made."""
    shipped, human = baselines.load(baselines.default_path()), baselines.load(RESULTS)
    for policy in POLICIES:
        for source, name, found, training in (
            ("expert's", policy, shipped, zoo.ZOO / policy / "training.json"),
            ("human", policy, human, TRAINED / f"{policy}.json"),
            ("human, as made", f"{policy}-{AS_MADE}", human, TRAINED / f"{policy}-{AS_MADE}.json"),
        ):
            baseline = found.entry(name, KEYPOINTS).baseline
            if baseline is not None:
                yield Measured(policy, source, baseline, training)


def table() -> str:
    """Markdown."""
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (HEAD, *(each.cells() for each in measured())))
    return "\n".join([head, f"|{'---|' * len(HEAD)}", *lines])


if __name__ == "__main__":
    print(table())
