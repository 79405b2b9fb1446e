"""The verdict on one policy: the decisions of its gates, and the intervals of its metrics.

The suite consults the gates after every block of episodes, and stops when all are decided.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from il_bench.errors import IlBenchError
from il_bench.gate import stats
from il_bench.gate.baselines import Baselines, Entry, Target
from il_bench.gate.measured import MeasuredBaseline
from il_bench.gate.sequential import Decision, GateResult, check_baseline, check_target
from il_bench.protocol import MAX_STEPS, TEST_SEEDS, Scalar
from il_bench.rollout.metrics import METRICS, Metric
from il_bench.rollout.outcomes import Outcomes

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A metric's mean and its two-sided 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """The result of one policy's episodes.

    against_target, against_baseline: None if there is no such gate. `target`: the target it was tested on.
    estimates: by metric, without those that no episode has a value of.
    sequential: whether the episodes ended when the gates were decided. Then the intervals are confidence
        sequences, which hold after early stopping; else Clopper & Pearson's for rates, bootstraps for means.
    problems: a sentence for each gate that fails the run.
    accepted: whether FAIL against the baseline was consented to beforehand, and so does not fail the run.
    """

    target: Target | None
    against_target: GateResult | None
    against_baseline: GateResult | None
    estimates: dict[str, Estimate]
    sequential: bool
    problems: tuple[str, ...]
    accepted: bool = False

    @property
    def decision(self) -> Decision:
        """The target's decision."""
        return Decision.NOT_GATED if self.against_target is None else self.against_target.decision


@dataclass(frozen=True)
class PolicyGates:
    """The gates of the policy called `name`, with the alpha they are tested at; None if it has no such gate.

    same: weights and conditions are the baseline's, so its episodes must be reproduced to the bit.
    max_steps: the most steps that an episode may have.
    replacing: whether these episodes are to become the baseline. Then the same weights may give others.
    accepted: whether they may be worse than the baseline.
    """

    name: str
    target: Target | None = None
    baseline: MeasuredBaseline | None = None
    same: bool = False
    max_steps: int = MAX_STEPS
    replacing: bool = False
    accepted: bool = False

    @staticmethod
    def of(
        name: str,
        track: str,
        sha256: str | None,
        *,
        baselines: Baselines,
        fingerprint: Mapping[str, Scalar],
        seeds: Sequence[int] = TEST_SEEDS,
        target: Target | None = None,
        replacing: bool = False,
        accepted: bool = False,
    ) -> "PolicyGates":
        """Return the gates that `baselines` declare for a policy and track.

        seeds: the episodes', in order. Declared gates apply to test seeds only.
        target: replaces the declared target, at its own alpha, on any seeds.
        replacing, accepted: see `PolicyGates`.

        Raises IlBenchError if the baseline's episodes cannot be compared with new ones, which do not replace
        it.
        """
        entry = baselines.tested(name, track) if seeds[0] in TEST_SEEDS else Entry()
        baseline = entry.baseline
        if replacing and baseline is not None and baseline.other_task(fingerprint):
            baseline = None
        same = baseline is not None and baseline.same(sha256=sha256, fingerprint=fingerprint, name=name)
        max_steps = int(fingerprint.get("max_steps") or MAX_STEPS)
        return PolicyGates(name, target or entry.target, baseline, same, max_steps, replacing, accepted)

    def most_episodes(self) -> int:
        """Return how many episodes, from the first test seed on, can matter for a decision, 0 if none can.

        That is the target's cap, or the baseline's last episode if it comes later. A baseline that has to be
        reproduced to the bit collects no evidence, so it asks for no episodes.
        """
        last = 0 if self.baseline is None or self.same else self.baseline.seeds.stop - TEST_SEEDS.start
        return max(last, 0 if self.target is None else self.target.cap)

    def look(self, so_far: Outcomes) -> tuple[bool, str]:
        """Return whether the gates need no more episodes, and what each says so far."""
        found = {"target": self._against_target(so_far), "baseline": self._against_baseline(so_far)}
        used_up = {
            "target": self.target is None or so_far.n >= self.target.cap,
            "baseline": self.baseline is None or int(so_far.seeds[-1]) >= self.baseline.seeds[-1],
        }
        said = {name: result.decision for name, result in found.items() if result is not None}
        decided = all(used_up[name] or said[name] is not Decision.INCONCLUSIVE for name in said)
        parts = (f"{name} {result.so_far}" for name, result in found.items() if result is not None)
        return decided, ", ".join(parts)

    def verdict(self, outcomes: Outcomes, *, sequential: bool = False) -> Verdict:
        """Return the verdict on these episodes, in seed order; `sequential`: see `Verdict`."""
        found, baseline = self._against_target(outcomes), self._against_baseline(outcomes)
        problems = []
        if self.target is not None and found is not None and found.decision is Decision.FAIL:
            problems.append(f"{self.name}: required {self.target.metric} of {self.target.value:g}: {found}")
        if baseline is not None and baseline.decision is Decision.FAIL and not self.accepted:
            problems.append(f"{self.name}: worse than its measured baseline: {baseline}")
        estimates = {
            name: _estimate(metric, outcomes, sequential, self.max_steps)
            for name, metric in METRICS.items()
            if metric.values(outcomes).size
        }
        return Verdict(self.target, found, baseline, estimates, sequential, tuple(problems), self.accepted)

    def _against_target(self, outcomes: Outcomes) -> GateResult | None:
        if self.target is None:
            return None
        values = METRICS[self.target.metric].values(outcomes)[: self.target.cap]
        options = self.target.model_dump(exclude={"source"})
        return check_target(values, target=options.pop("value"), **options)

    def _against_baseline(self, outcomes: Outcomes) -> GateResult | None:
        if self.baseline is None:
            return None
        pair = self.baseline.pairs(outcomes)
        new, old = map(METRICS[self.baseline.metric].values, pair)
        differs_at = self.baseline.first_difference(outcomes) if self.same else None
        return check_baseline(
            new,
            old,
            **self.baseline.model_dump(include={"metric", "margin", "alpha", "beta"}),
            same=self.same and not (self.replacing and differs_at is not None),
            differs_at=differs_at,
            seeds=pair[0].seeds,
            cap=self.baseline.n_episodes,
        )


def exit_status(rows: Iterable[Mapping[str, Any]]) -> int:
    """Return pytest's exit status for the `success` rows of a report.

    Each row has `target` ({"decision", "required", ..} or None) and `baseline` ({"decision", "accepted", ..}
    or None). 1: FAIL against a required target, or against a baseline unless it was accepted. Otherwise 6: a
    required target is INCONCLUSIVE. Otherwise 0, even if a comparison with a baseline is INCONCLUSIVE. An
    unknown decision is an IlBenchError.
    """
    is_failed = is_undecided = False
    for row in rows:
        for kind in ("target", "baseline"):
            gate = row.get(kind)
            if gate is None or not gate.get("required", True) or gate.get("accepted", False):
                continue
            decision = gate.get("decision")
            if decision not in list(Decision):
                raise IlBenchError(f"decision = {decision!r}: need one of {', '.join(Decision)}")
            is_failed |= decision == Decision.FAIL
            is_undecided |= kind == "target" and decision == Decision.INCONCLUSIVE
    return 1 if is_failed else 6 if is_undecided else 0


def _estimate(metric: Metric, outcomes: Outcomes, sequential: bool, max_steps: int) -> Estimate:
    values = metric.values(outcomes)
    span = (max_steps if metric.high is None else metric.high) - metric.low
    shares = (values - metric.low) / span
    if sequential:
        low, high = stats.confidence_sequence(shares, CONFIDENCE)
    elif metric.is_binary:
        low, high = stats.clopper_pearson(int(values.sum()), values.size, CONFIDENCE)
    else:  # a fixed generator: the same episodes always give the same interval
        low, high = stats.mean_interval(shares, CONFIDENCE, np.random.default_rng(0))
    return Estimate(metric.estimate(outcomes), metric.low + span * low, metric.low + span * high)
