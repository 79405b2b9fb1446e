"""`il-bench metrics`: each metric by its name, so that like stands beside like.

0.92 in one paper and 0.65 on a model card may be the same policy, in two metrics.
"""

from collections.abc import Iterator

from il_bench.errors import IlBenchError
from il_bench.gate.verdict import PolicyGates
from il_bench.report.rows import Interval
from il_bench.report.schema import Report, Success
from il_bench.report.success import label, ranked
from il_bench.report.tables import published
from il_bench.rollout.metrics import METRICS, Metric
from il_bench.rollout.outcomes import Outcomes


def told(report: Report) -> Iterator[str]:
    """Yield the lines: of each metric what it is, who publishes it, and who reached what.

    Raises IlBenchError for a report without policies.
    """
    if not report.success:
        raise IlBenchError("the report holds no episodes; make one with pytest --benchmark")
    rows = [(row, _measured(row)) for row in ranked(report.success)]
    for name, metric in METRICS.items():
        yield f"{name}: {metric.about}; published by {metric.publishers}"
        here = [
            (
                label(row),
                metric.text(*found[name].model_dump().values(), digits=metric.digits),
                f"{row.n_episodes:,} episodes",
            )
            for row, found in rows
            if name in found
        ]
        lines = [*here, *_published(metric)]
        widths = [max((len(line[column]) for line in lines), default=0) for column in (0, 1)]
        for who, value, where in lines:
            yield f"  {who:{widths[0]}}  {value:{widths[1]}}  {where}"
        yield ""
    yield "published numbers: for other start states and, mostly, camera images and human demonstrations"


def _measured(row: Success) -> dict[str, Interval]:
    """Return a row's metrics; an older report lacks some, which follow from its episodes."""
    found = {name: value for name in METRICS if (value := row.measured(name)) is not None}
    if len(found) < len(METRICS) and row.episodes:
        outcomes = Outcomes.from_records([episode.model_dump() for episode in row.episodes])
        sequential = row.interval == "confidence sequence"
        verdict = PolicyGates(row.policy).verdict(outcomes, sequential=sequential)
        again = {name: Interval(**each._asdict()) for name, each in verdict.estimates.items()}
        found = again | found
    return found


def _published(metric: Metric) -> list[tuple[str, str, str]]:
    """Return what is published in a metric, the best first."""
    known = [(each.values[metric.name], each) for each in published("results") if metric.name in each.values]
    known.sort(key=lambda pair: pair[0], reverse=metric.higher_is_better)
    return [
        (
            f"published: {each.label}, {each.track}",
            f"{value:.{metric.digits}f}",
            f"{f'{each.n:,} episodes, ' if each.n else ''}{each.source} ({each.trust})",
        )
        for value, each in known
    ]
