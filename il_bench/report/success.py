"""One policy's episodes -> its row of the report, with its gates, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from il_bench import stats
from il_bench.baselines import TEST_SEEDS, Baselines, Entry, Measured, Scalar
from il_bench.baselines import Target as Declared
from il_bench.gate import Decision, GateResult, check_baseline, check_target
from il_bench.outcomes import Outcomes
from il_bench.report.schema import Baseline, Episode, Interval, Success, Target

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
) -> Verdict:
    """Gate one policy's episodes and make its row.

    name: what the row and the gates in `baselines` call the policy.
    target: replaces the one declared in `baselines`, at its own alpha.
    compare: whether to compare with the measured baseline, which makes no sense for one about to be replaced.
    Only episodes on test seeds meet the gates of `baselines`; seeds that its baseline lacks are not compared.

    Raises:
        IlBenchError: the baseline is of another task than these episodes.
    """
    on_test_seeds = bool(np.isin(outcomes.seeds, TEST_SEEDS).all())
    entry = baselines.entry(name, policy.track) if on_test_seeds else Entry()
    problems: list[str] = []
    against_target = against_baseline = None
    declared = target or entry.target
    if declared is not None:
        alpha = declared.alpha if target is not None else baselines.alpha(declared)
        result = _against_target(outcomes, declared, alpha)
        if result.decision is Decision.FAIL:
            problems.append(f"{name}: required {declared.metric} of {declared.value:g}: {result}")
        against_target = Target(
            metric=declared.metric,
            value=declared.value,
            margin=declared.margin,
            required=declared.required,
            decision=result.decision,
            evidence=result.evidence,
        )
    if entry.baseline is not None and compare:
        same = entry.baseline.same(sha256=policy.sha256 or "", fingerprint=fingerprint, name=name)
        result = _against_baseline(name, outcomes, entry.baseline, baselines.alpha(entry.baseline), same)
        if result.decision is Decision.FAIL:
            problems.append(f"{name}: worse than its measured baseline: {result}")
        against_baseline = Baseline(decision=result.decision, n=result.n, evidence=result.evidence)
    row = _row(name, policy, outcomes, against_target, against_baseline)
    return Verdict(row, tuple(problems))


def _against_target(outcomes: Outcomes, target: Declared, alpha: float) -> GateResult:
    values = outcomes.success if target.metric == "success_rate" else outcomes.max_reward
    return check_target(
        values[: target.cap],
        target=target.value,
        margin=target.margin,
        alpha=alpha,
        beta=target.beta,
        cap=target.cap,
        required=target.required,
        metric=target.metric,
    )


def _against_baseline(
    name: str, outcomes: Outcomes, baseline: Measured, alpha: float, same: bool
) -> GateResult:
    shared = Outcomes.from_records(
        [record for record in outcomes.to_records() if record["seed"] in baseline.seeds], outcomes.seconds
    )
    new, old = baseline.pairs(shared, name=name)
    differs_at = baseline.first_difference(shared, name=name) if same else None
    return check_baseline(
        new, old, margin=baseline.margin, alpha=alpha, beta=baseline.beta, same=same, differs_at=differs_at
    )


def _row(
    name: str, policy: Described, outcomes: Outcomes, target: Target | None, baseline: Baseline | None
) -> Success:
    rate_low, rate_high = stats.clopper_pearson(int(outcomes.success.sum()), outcomes.n, CONFIDENCE)
    # A fixed generator: the same episodes always give the same interval.
    low, high = stats.mean_interval(outcomes.max_reward, CONFIDENCE, np.random.default_rng(0))
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
            "success_rate": Interval(estimate=outcomes.success_rate, low=rate_low, high=rate_high),
            "mean_max_reward": Interval(estimate=outcomes.mean_max_reward, low=low, high=high),
            "share_outside": outcomes.share_outside,
            "seconds": outcomes.seconds,
            "episodes": tuple(Episode(**record) for record in outcomes.to_records()),
        }
    )
