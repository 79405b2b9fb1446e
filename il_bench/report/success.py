"""One policy's episodes -> its row of the report, with its gates, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from il_bench.gate import Decision, GateResult, stats
from il_bench.gate.baselines import Baselines
from il_bench.gate.baselines import Target as Declared
from il_bench.gate.verdict import PolicyGates
from il_bench.protocol import TEST_SEEDS, Scalar
from il_bench.report.schema import Baseline, Interval, IntervalKind, Success, Target
from il_bench.rollout.outcomes import Episode, Outcomes

CONFIDENCE = 0.95


class Described(Protocol):
    """What a row says about a policy beside its episodes; `il_bench.policies` has it for every checkpoint."""

    @property
    def track(self) -> str: ...  # noqa: D102
    @property
    def checkpoint(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str | None: ...  # noqa: D102
    @property
    def parameters(self) -> int: ...  # noqa: D102
    @property
    def data(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Verdict:
    """A row, and one sentence for each gate that fails the run."""

    row: Success
    problems: tuple[str, ...]


def judge(
    name: str,
    policy: Described,
    outcomes: Outcomes,
    *,
    baselines: Baselines,
    fingerprint: Mapping[str, Scalar],
    target: Declared | None = None,
    compare: bool = True,
    sequential: bool = False,
) -> Verdict:
    """Gate one policy's episodes and make its row.

    name: what the row and the gates in `baselines` call the policy.
    target: replaces the one declared in `baselines`, at its own alpha.
    compare: whether to compare with the measured baseline, which makes no sense for one about to be replaced.
    sequential: whether the episodes ended when the gates were decided; else their number was fixed before.
    Only episodes on test seeds meet the gates of `baselines`; seeds that its baseline lacks are not compared.

    Raises:
        IlBenchError: the baseline is of another task than these episodes.
    """
    on_test_seeds = bool(np.isin(outcomes.seeds, TEST_SEEDS).all())
    gates = PolicyGates.of(
        name,
        policy.track,
        policy.sha256,
        baselines=baselines if on_test_seeds else Baselines(),
        fingerprint=fingerprint,
        target=target,
        compare=compare,
    )
    problems: list[str] = []
    against_target = against_baseline = None
    target_result, baseline_result = gates.check(outcomes)
    if target_result is not None and gates.target is not None:
        against_target = _target(gates.target, target_result)
        if target_result.decision is Decision.FAIL:
            problems.append(
                f"{name}: required {gates.target.metric} of {gates.target.value:g}: {target_result}"
            )
    if baseline_result is not None:
        against_baseline = Baseline(
            decision=baseline_result.decision, n=baseline_result.n, evidence=baseline_result.evidence
        )
        if baseline_result.decision is Decision.FAIL:
            problems.append(f"{name}: worse than its measured baseline: {baseline_result}")
    row = _row(name, policy, outcomes, against_target, against_baseline, sequential)
    return Verdict(row, tuple(problems))


def _target(declared: Declared, result: GateResult) -> Target:
    return Target(
        metric=declared.metric,
        value=declared.value,
        margin=declared.margin,
        required=declared.required,
        decision=result.decision,
        evidence=result.evidence,
    )


def _intervals(outcomes: Outcomes, sequential: bool) -> tuple[IntervalKind, Interval, Interval]:
    """Return which intervals these are, success_rate's and mean_max_reward's."""
    kind: IntervalKind
    if sequential:
        kind = "confidence sequence"
        rate = stats.confidence_sequence(outcomes.success, CONFIDENCE)
        reward = stats.confidence_sequence(outcomes.max_reward, CONFIDENCE)
    else:
        kind = "Clopper-Pearson"
        rate = stats.clopper_pearson(int(outcomes.success.sum()), outcomes.n, CONFIDENCE)
        # A fixed generator: the same episodes always give the same interval.
        reward = stats.mean_interval(outcomes.max_reward, CONFIDENCE, np.random.default_rng(0))
    return (
        kind,
        Interval(estimate=outcomes.success_rate, low=rate[0], high=rate[1]),
        Interval(estimate=outcomes.mean_max_reward, low=reward[0], high=reward[1]),
    )


def _row(
    name: str,
    policy: Described,
    outcomes: Outcomes,
    target: Target | None,
    baseline: Baseline | None,
    sequential: bool,
) -> Success:
    kind, success_rate, mean_max_reward = _intervals(outcomes, sequential)
    return Success.model_validate(
        {
            "policy": name,
            "track": policy.track,
            "data": policy.data,
            "checkpoint": policy.checkpoint,
            "sha256": policy.sha256,
            "parameters": policy.parameters,
            "decision": Decision.NOT_GATED if target is None else target.decision,
            "target": target,
            "baseline": baseline,
            "n_episodes": outcomes.n,
            "success_rate": success_rate,
            "mean_max_reward": mean_max_reward,
            "interval": kind,
            "share_outside": outcomes.share_outside,
            "seconds": outcomes.seconds,
            "episodes": tuple(Episode(**record) for record in outcomes.to_records()),
        }
    )
