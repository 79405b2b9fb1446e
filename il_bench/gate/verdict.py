"""The gates one policy meets, its target and its measured baseline: what they say of its episodes.

The suite asks after every block of episodes, and stops when both are decided. What decides a gate is the
first episode at which its evidence reaches its level (see `gate`), inside a block or at its end. So how often
the suite looks changes when it stops, never what is decided.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from il_bench.gate.baselines import Baselines, Measured, Target
from il_bench.gate.sequential import Decision, GateResult, check_baseline, check_target
from il_bench.protocol import TEST_SEEDS, Scalar
from il_bench.rollout.outcomes import Outcomes


@dataclass(frozen=True)
class PolicyGates:
    """The gates of the policy called `name`, each None where it has none.

    target_alpha, baseline_alpha: the risk of a wrong FAIL that each is tested at.
    same: weights and conditions are the baseline's, whose episodes must come out again to the bit.
    """

    name: str
    target: Target | None = None
    target_alpha: float = 0.0
    baseline: Measured | None = None
    baseline_alpha: float = 0.0
    same: bool = False

    @staticmethod
    def of(
        name: str,
        track: str,
        sha256: str | None,
        *,
        baselines: Baselines,
        fingerprint: Mapping[str, Scalar],
        target: Target | None = None,
        compare: bool = True,
    ) -> "PolicyGates":
        """Return the gates declared for a policy and track.

        target: replaces the one declared in `baselines`, at its own alpha.
        compare: whether to compare with the measured baseline.

        Raises:
            IlBenchError: the baseline is of another task.
        """
        entry = baselines.entry(name, track)
        declared = target or entry.target
        baseline = entry.baseline if compare else None
        return PolicyGates(
            name=name,
            target=declared,
            target_alpha=0.0 if declared is None else target.alpha if target else baselines.alpha(declared),
            baseline=baseline,
            baseline_alpha=0.0 if baseline is None else baselines.alpha(baseline),
            same=baseline is not None
            and baseline.same(sha256=sha256 or "", fingerprint=fingerprint, name=name),
        )

    def most_episodes(self) -> int:
        """Return how many episodes from the first test seed on can say anything, 0 if none has to.

        The target's cap, or the last episode that the baseline has. A baseline that has to be reproduced to
        the bit needs no evidence: alone it decides nothing about how many episodes to run.
        """
        last = 0
        if self.baseline is not None and not self.same:
            last = self.baseline.seeds.stop - TEST_SEEDS.start
        return max(last, 0 if self.target is None else self.target.cap)

    def check(self, outcomes: Outcomes) -> tuple[GateResult | None, GateResult | None]:
        """Return what the target's gate and the baseline's say of these episodes, in seed order."""
        return (
            None if self.target is None else self._check_target(self.target, outcomes),
            None if self.baseline is None else self._check_baseline(self.baseline, outcomes),
        )

    def look(self, so_far: Outcomes) -> tuple[bool, str]:
        """Return whether more episodes could decide nothing more, and what each gate says so far."""
        target, baseline = self.check(so_far)
        decided, said = True, []
        if target is not None and self.target is not None:
            decided &= target.decision is not Decision.INCONCLUSIVE or so_far.n >= self.target.cap
            said.append(f"target {target.decision}")
        if baseline is not None and self.baseline is not None:
            used_up = int(so_far.seeds[-1]) >= self.baseline.seeds[-1]
            decided &= baseline.decision is not Decision.INCONCLUSIVE or used_up
            said.append(f"baseline {baseline.decision}")
        return decided, ", ".join(said)

    def _check_target(self, target: Target, outcomes: Outcomes) -> GateResult:
        values = outcomes.success if target.metric == "success_rate" else outcomes.max_reward
        return check_target(
            values[: target.cap],
            target=target.value,
            margin=target.margin,
            alpha=self.target_alpha,
            beta=target.beta,
            cap=target.cap,
            required=target.required,
            metric=target.metric,
        )

    def _check_baseline(self, baseline: Measured, outcomes: Outcomes) -> GateResult:
        """Seeds that the baseline lacks are not compared."""
        shared = outcomes.take(np.flatnonzero(np.isin(outcomes.seeds, baseline.seeds)))
        new, old = baseline.pairs(shared, name=self.name)
        differs_at = baseline.first_difference(shared, name=self.name) if self.same else None
        return check_baseline(
            new,
            old,
            margin=baseline.margin,
            alpha=self.baseline_alpha,
            beta=baseline.beta,
            same=self.same,
            differs_at=differs_at,
        )
