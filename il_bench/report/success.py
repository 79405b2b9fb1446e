"""The success section of the report: a policy's row from its verdict, and the table of all rows."""

from collections.abc import Iterable
from typing import Any

from il_bench.gate import Decision, GateResult
from il_bench.gate.baselines import Baselines, Target
from il_bench.gate.paired import difference
from il_bench.gate.verdict import Verdict
from il_bench.protocol import CONTEXT, KEYPOINTS, MAX_EPISODES, PIXELS, TRACKS
from il_bench.report.schema import OnKeypoints, Report, Success, TargetResult
from il_bench.report.tables import Cell, Column, Section, Table, published, shortened
from il_bench.rollout.metrics import DEFAULT_METRIC, METRICS, Metric
from il_bench.rollout.outcomes import Outcomes

TONES = {
    Decision.PASS: "green",
    Decision.UNCHANGED: "green",
    Decision.FAIL: "red",
    Decision.INCONCLUSIVE: "yellow",
    Decision.BELOW_TARGET: "yellow",
    Decision.NOT_GATED: "dim",
}


def row_of(policy: Any, outcomes: Outcomes, verdict: Verdict) -> Success:
    """Return the row of a policy, an `il_bench.policies.checkpoint.LoadedPolicy`."""
    facts = ("track", "data", "checkpoint", "sha256", "parameters")
    target, against_target, baseline = verdict.target, verdict.against_target, verdict.against_baseline
    intervals = {name: found._asdict() for name, found in verdict.estimates.items()}
    row = {
        "policy": policy.name,
        **{name: getattr(policy, name) for name in facts},
        "decision": verdict.decision,
        "target": None,
        "baseline": None,
        "n_episodes": outcomes.n,
        "success_rate": intervals["success_rate"],
        "mean_max_reward": intervals["mean_max_reward"],
        "metrics": intervals,
        "interval": "confidence sequence" if verdict.sequential else "Clopper-Pearson",
        "share_outside": outcomes.share_outside,
        "seconds": outcomes.seconds,
        "episodes": outcomes.to_records(),
    }
    if target is not None and against_target is not None:
        row["target"] = target_result(target, against_target)
    if baseline is not None:
        said = {name: getattr(baseline, name) for name in ("decision", "n", "evidence", "told", "margin")}
        beside = {} if baseline.beside is None else vars(baseline.beside)
        row["baseline"] = {**said, **beside, "accepted": verdict.accepted}
    return Success.model_validate(row)


def on_keypoints(policy: Any, outcomes: Outcomes, baselines: Baselines) -> OnKeypoints | None:
    """Return what seeing costs a policy on images, by the seeds that its baseline on keypoints has too."""
    baseline = baselines.entry(policy.name, KEYPOINTS).baseline
    if policy.track != PIXELS or baseline is None:
        return None
    pixels, keypoints = (each.success for each in baseline.pairs(outcomes))
    lost, won = int((keypoints & ~pixels).sum()), int((pixels & ~keypoints).sum())
    if not (n := len(pixels)):
        return None
    rates = {"keypoints": float(keypoints.mean()), "pixels": float(pixels.mean())}
    return OnKeypoints(n=n, **rates, lost=lost, won=won, p=difference(lost, won, n).p)


def target_result(target: Target, found: GateResult) -> TargetResult:
    """Return a target and what was found, as reports hold it."""
    declared = target.model_dump(include={"metric", "value", "margin", "required", "source"})
    return TargetResult(**declared, decision=found.decision, evidence=found.evidence, told=found.told)


def properties(row: Success) -> list[tuple[str, str]]:
    """Return a row as the properties of its test in JUnit XML: rates, intervals, decisions, seeds."""
    found: dict[str, object] = {
        name: getattr(row, name) for name in ("policy", "track", "decision", "n_episodes")
    }
    if row.episodes:
        found["seeds"] = f"{row.episodes[0].seed}-{row.episodes[-1].seed}"
    for kind, gate in (("target", row.target), ("baseline", row.baseline)):
        if gate is not None:
            found |= {f"{kind}.decision": gate.decision, f"{kind}.told": gate.told}
    if row.target is not None:
        found |= {
            f"target.{name}": getattr(row.target, name) for name in ("metric", "value", "margin", "required")
        }
    known = {name: value for name in METRICS if (value := row.measured(name)) is not None}
    for name, interval in known.items():
        found |= {name: interval.estimate, f"{name}.low": interval.low, f"{name}.high": interval.high}
    return [(f"il_bench.{name}", str(value)) for name, value in found.items()]


def properties_of(
    result: GateResult, target: float | None, outcomes: Outcomes, number: int = 1
) -> list[tuple[str, str]]:
    """Return what a user's own gate on a success rate said, as properties of its test.

    number: which gate of the test it is; the names of later ones say so.
    """
    found: dict[str, object] = {"decision": result.decision, "told": result.told, "n_episodes": outcomes.n}
    if outcomes.n and result.test is not None:
        ends = dict(zip(("", ".low", ".high"), result.test.interval(), strict=True))
        found |= {f"{DEFAULT_METRIC}{end}": value for end, value in ends.items()}
        found["seeds"] = f"{outcomes.seeds[0]}-{outcomes.seeds[-1]}"
    if target is not None:
        found |= {"target.metric": DEFAULT_METRIC, "target.value": target, "target.margin": result.margin}
    prefix = "il_bench" if number == 1 else f"il_bench.{number}"
    return [(f"{prefix}.{name}", str(value)) for name, value in found.items()]


def ranked(rows: Iterable[Success]) -> list[Success]:
    """Return the rows, the best first: ordered by the first metric, ties by the next, and so on."""

    def rank(row: Success) -> tuple[float | str, ...]:
        places: list[float] = []
        for name, metric in METRICS.items():
            found = row.measured(name)
            sign = -1 if metric.higher_is_better else 1
            places.append(float("inf") if found is None else sign * found.estimate)
        return *places, row.policy

    return sorted(rows, key=rank)


def label(row: Success) -> str:
    """Return a row's name: the policy, with its environment if that is not PushT."""
    return row.policy if row.track in TRACKS else f"{row.policy} ({row.track})"


def section(report: Report) -> Section:
    """Return the table of all rows, the best first.

    For context it ends with ceiling and floor, and published results of the same policies on the same track.
    """
    rows = ranked(report.success)
    columns = [metric for metric in METRICS.values() if metric.is_column]
    asked = [_cells(row) for row in rows if row.policy not in CONTEXT]
    context = [_cells(row) for row in rows if row.policy in CONTEXT]
    here = {(row.policy, row.track) for row in rows}
    numbers: dict[str, int] = {}
    for known in published("results"):
        is_told = any(known.values.get(metric.name) is not None for metric in columns)
        if (known.policy, known.track) in here and is_told:
            number = numbers.setdefault(f"{known.source} ({known.trust})", len(numbers) + 1)
            values = [(metric.digits, known.values.get(metric.name)) for metric in columns]
            metrics = ["" if value is None else f"{value:.{digits}f}" for digits, value in values]
            context.append((known.label, "", *metrics, f"published [{number}]", "", str(known.n or ""), ""))
    outside = [
        f"{label(row)}: {row.share_outside:.2%} of its actions lie outside "
        f"{'[0, 512] px' if row.track in TRACKS else 'the action space'} (they are not clipped)"
        for row in rows
        if row.share_outside > 0
    ]
    outside += [
        f"{label(row)}: its gates used the first {MAX_EPISODES:,} of {row.n_episodes:,} episodes"
        for row in rows
        if row.n_episodes > MAX_EPISODES and (row.target or row.baseline)
    ]
    notes = (
        attention(rows)
        + sources_of_targets(rows)
        + _intervals(report.success)
        + outside
        + [f"[{number}] {said}" for said, number in numbers.items()]
    )
    about = {name: f"{metric.about}; published by {metric.publishers}" for name, metric in METRICS.items()}
    heads = (
        Column("policy", is_whole=True),
        Column("parameters", is_number=True, is_whole=True),
        *(Column(each.name, about[each.name], is_whole=True, is_spare=not each.gated) for each in columns),
        *(Column("against target"), Column("against baseline")),
        *(Column("episodes", is_number=True), Column("seconds", is_number=True)),
    )
    found = [Table(heads, asked, context), *_other_metrics(rows, about), *_seeing(rows)] if rows else []
    return Section("success", found, notes)


def _other_metrics(rows: Iterable[Success], about: dict[str, str]) -> list[Table]:
    """Return the table of the metrics that are no columns of the first; none without values."""
    others = [metric for metric in METRICS.values() if not metric.is_column]
    found = [
        (label(row), *(_text(row, metric) for metric in others))
        for row in rows
        if any(row.measured(metric.name) for metric in others)
    ]
    heads = (Column("policy", is_whole=True), *(Column(each.name, about[each.name]) for each in others))
    return [Table(heads, found)] if found else []


def _text(row: Success, metric: Metric) -> str:
    value = row.measured(metric.name)
    return "" if value is None else metric.text(*value.model_dump().values())


def _seeing(rows: Iterable[Success]) -> list[Table]:
    """Return the table of what seeing costs, if a policy on images has its like on keypoints."""
    found = [(label(row), row.on_keypoints) for row in rows if row.on_keypoints is not None]
    costs = [
        (name, str(by.n), f"{by.keypoints:.3f}", f"{by.pixels:.3f}", str(by.lost), str(by.won), f"{by.p:.2g}")
        for name, by in found
    ]
    names = ("what seeing costs", "same seeds", "on keypoints", "on images", "lost", "won", "p if equal")
    return [Table.of(names, costs)] if costs else []


def attention(rows: Iterable[Success]) -> list[str]:
    """Return a sentence for each gate that is not passed, with what its episodes show."""
    return [sentence for _, sentence in open_gates(rows)]


def open_gates(rows: Iterable[Success]) -> list[tuple[Decision, str]]:
    """Return the decision of each gate that is not passed, and a sentence with what its episodes show."""
    found: list[tuple[Decision, str]] = []
    for row in rows:
        for gate, what in ((row.target, "target"), (row.baseline, "baseline")):
            if gate is not None and gate.told and gate.decision not in (Decision.PASS, Decision.UNCHANGED):
                said = f"{shortened(label(row))}: {gate.decision} against its {what}: {gate.told}"
                found.append((gate.decision, said))
    return found


def sources_of_targets(rows: Iterable[Success]) -> list[str]:
    """Return a sentence for each source of targets, with their values."""
    values: dict[str, set[float]] = {}
    for row in rows:
        if row.target is not None and row.target.source:
            values.setdefault(row.target.source, set()).add(row.target.value)
    return [
        f"target{'s' * (len(found) > 1)} {', '.join(f'{each:.2f}' for each in sorted(found))}: {source}"
        for source, found in values.items()
    ]


def target_text(target: TargetResult | None) -> str:
    """Return the decision against a target with its reason, such as 'PASS (> 0.80 shown)'."""
    if target is None:
        return str(Decision.NOT_GATED)
    if target.decision is Decision.PASS:
        found = f"> {target.value - target.margin:.2f} shown"
    elif target.decision in (Decision.FAIL, Decision.BELOW_TARGET):
        found = f"< {target.value:.2f} shown"
    else:
        found = f"target {target.value:.2f}"
    return f"{target.decision} ({found}{'' if target.metric == DEFAULT_METRIC else f', {target.metric}'})"


def _cells(row: Success) -> tuple[str, ...]:
    metrics = [_text(row, metric) for metric in METRICS.values() if metric.is_column]
    baseline = row.baseline
    return (
        label(row),
        count(row.parameters),
        *metrics,
        Cell(target_text(row.target), TONES[row.decision]),
        "none" if baseline is None else Cell(baseline.decision, TONES[baseline.decision]),
        str(row.n_episodes),
        f"{row.seconds:.0f}",
    )


def _intervals(rows: Iterable[Success]) -> list[str]:
    """Say what kinds of intervals stand in brackets, and whose they are."""
    explained = {
        "confidence sequence": "confidence sequences, since the episodes ended when the gates were decided",
        "Clopper-Pearson": "Clopper-Pearson for rates, a bootstrap for means, of a fixed number of episodes",
    }
    policies = {kind: [label(row) for row in rows if row.interval == kind] for kind in explained}
    return [f"95 % {explained[kind]}: {', '.join(names)}" for kind, names in policies.items() if names]


def count(parameters: int) -> str:
    """Return a number of parameters in words, such as 1.6 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.1f} {unit}"
    return str(parameters)
