"""The success section: one policy's row out of its verdict, and the table of all rows."""

from collections.abc import Iterable
from typing import Protocol

from il_bench.gate import Decision
from il_bench.gate.baselines import Target
from il_bench.gate.sequential import GateResult
from il_bench.gate.verdict import Verdict
from il_bench.protocol import CONTEXT, TRACKS
from il_bench.report.schema import BaselineResult, Interval, Report, Success, TargetResult
from il_bench.report.tables import Cell, Column, Section, Table, published
from il_bench.rollout.metrics import DEFAULT_METRIC, METRICS
from il_bench.rollout.outcomes import Episode, Outcomes

_TONES = {
    Decision.PASS: "green",
    Decision.UNCHANGED: "green",
    Decision.FAIL: "red",
    Decision.INCONCLUSIVE: "yellow",
    Decision.BELOW_TARGET: "yellow",
    Decision.NOT_GATED: "dim",
}


class Described(Protocol):
    """What a row says about a policy beside its episodes; `il_bench.policies` has it for every checkpoint."""

    @property
    def name(self) -> str: ...  # noqa: D102
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


def row_of(policy: Described, outcomes: Outcomes, verdict: Verdict) -> Success:
    """Return one policy's row."""
    intervals = {name: Interval(**found._asdict()) for name, found in verdict.estimates.items()}
    baseline = verdict.against_baseline
    return Success.model_validate(
        {
            "policy": policy.name,
            "track": policy.track,
            "data": policy.data,
            "checkpoint": policy.checkpoint,
            "sha256": policy.sha256,
            "parameters": policy.parameters,
            "decision": verdict.decision,
            "target": _target_result(verdict.target, verdict.against_target),
            "baseline": None
            if baseline is None
            else BaselineResult(decision=baseline.decision, n=baseline.n, evidence=baseline.evidence),
            "n_episodes": outcomes.n,
            "success_rate": verdict.estimates["success_rate"]._asdict(),
            "mean_max_reward": verdict.estimates["mean_max_reward"]._asdict(),
            "metrics": intervals,
            "interval": "confidence sequence" if verdict.sequential else "Clopper-Pearson",
            "share_outside": outcomes.share_outside,
            "seconds": outcomes.seconds,
            "episodes": tuple(Episode(**record) for record in outcomes.to_records()),
        }
    )


def _target_result(target: Target | None, result: GateResult | None) -> TargetResult | None:
    if target is None or result is None:
        return None
    declared = target.model_dump(include={"metric", "value", "margin", "required"})
    return TargetResult(**declared, decision=result.decision, evidence=result.evidence)


def ranked(rows: Iterable[Success]) -> list[Success]:
    """Return the best row first: by the first metric, where that is equal by the next, and so on."""

    def rank(row: Success) -> tuple[float | str, ...]:
        found = [
            (-1 if metric.higher_is_better else 1, row.measured(name)) for name, metric in METRICS.items()
        ]
        return (
            *(float("inf") if value is None else sign * value.estimate for sign, value in found),
            row.policy,
        )

    return sorted(rows, key=rank)


def label(row: Success) -> str:
    """Return what a row is called: the policy, and the environment if it is not PushT."""
    return row.policy if row.track in TRACKS else f"{row.policy} ({row.track})"


def section(report: Report) -> Section:
    """Return the table of all rows, best first.

    Below it for context: ceiling and floor, and published results of the same policies on the same track.
    """
    rows = ranked(report.success)
    asked = [_cells(row) for row in rows if row.policy not in CONTEXT]
    context = [_cells(row) for row in rows if row.policy in CONTEXT]
    here = {(row.policy, row.track) for row in rows}
    sources: dict[str, int] = {}
    for known in published("results"):
        if (known.policy, known.track) in here:
            number = sources.setdefault(f"{known.source} ({known.trust})", len(sources) + 1)
            values = [(metric.digits, known.values.get(name)) for name, metric in METRICS.items()]
            metrics = ["" if value is None else f"{value:.{digits}f}" for digits, value in values]
            context.append((known.label, "", *metrics, f"published [{number}]", "", str(known.n or ""), ""))
    outside = [
        f"{label(row)}: {row.share_outside:.2%} of its actions lie outside "
        f"{'[0, 512] px' if row.track in TRACKS else 'the action space'} (they are not clipped)"
        for row in rows
        if row.share_outside > 0
    ]
    notes = _intervals(report.success) + outside + [f"[{number}] {said}" for said, number in sources.items()]
    return Section("success", [Table(_columns(), asked, context)] if rows else [], notes)


def target_text(target: TargetResult | None) -> str:
    """Return the decision against a target and what it rests on, such as 'PASS (> 0.80 shown)'."""
    if target is None:
        return str(Decision.NOT_GATED)
    if target.decision is Decision.PASS:
        found = f"> {target.value - target.margin:.2f} shown"
    elif target.decision in (Decision.FAIL, Decision.BELOW_TARGET):
        found = f"< {target.value:.2f} shown"
    else:
        found = f"target {target.value:.2f}"
    return f"{target.decision} ({found}{'' if target.metric == DEFAULT_METRIC else f', {target.metric}'})"


def _columns() -> tuple[Column, ...]:
    said = {name: f"{metric.about}; published by {metric.publishers}" for name, metric in METRICS.items()}
    return (
        Column("policy", is_whole=True),
        Column("parameters", is_number=True, is_whole=True),
        *(Column(name, said[name], is_whole=True, is_spare=not METRICS[name].gated) for name in METRICS),
        *(Column("against target"), Column("against baseline")),
        *(Column("episodes", is_number=True), Column("seconds", is_number=True)),
    )


def _cells(row: Success) -> tuple[str, ...]:
    found = [(metric, row.measured(name)) for name, metric in METRICS.items()]
    metrics = ["" if value is None else metric.text(*value.model_dump().values()) for metric, value in found]
    baseline = row.baseline
    return (
        label(row),
        _count(row.parameters),
        *metrics,
        Cell(target_text(row.target), _TONES[row.decision]),
        "none" if baseline is None else Cell(baseline.decision, _TONES[baseline.decision]),
        str(row.n_episodes),
        f"{row.seconds:.0f}",
    )


def _intervals(rows: Iterable[Success]) -> list[str]:
    """Say what the intervals in brackets are, of each kind that there is."""
    explained = {
        "confidence sequence": "confidence sequences, as the episodes ended when the gates were decided",
        "Clopper-Pearson": "Clopper-Pearson's, of means a bootstrap's, of a fixed number of episodes",
    }
    policies = {kind: [label(row) for row in rows if row.interval == kind] for kind in explained}
    return [f"95 % {explained[kind]}: {', '.join(names)}" for kind, names in policies.items() if names]


def _count(parameters: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.1f} {unit}"
    return str(parameters)
