"""report.html: one file that shows a run, or two beside each other, and plays every recorded episode.

It needs no network and no server. The answer and every table are plain HTML; charts, grid and player are
drawn by the scripts in `js/`, from the JSON that this module puts into the page.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from il_bench import zoo
from il_bench.errors import IlBenchError
from il_bench.protocol import CONTEXT, CONTROL_PERIOD_MS, EXPERT, NEAR_COVERAGE, SUCCESS_COVERAGE, TRACKS
from il_bench.pusht.geometry import GOAL_POSE, OUTLINE
from il_bench.report import history, latency, success, tables
from il_bench.report.page import episodes, series, words
from il_bench.report.schema import Report, Success
from il_bench.rollout.endings import ABOUT
from il_bench.rollout.recording import UNITS

_HERE = Path(__file__).parent
_UNKNOWN = "not known"
_ABOUT = {**{str(ending): text for ending, text in ABOUT.items()}, _UNKNOWN: "an older il_bench did not say"}
#: In the order in which they are put into the page: later ones use earlier ones.
SCRIPTS = ("dom", "unpack", "scene", "chart", "grid", "player", "figures", "tokens", "main")


def render(
    report: Report,
    sections: Sequence[tables.Section] = (),
    folder: Path | None = None,
    *,
    before: Report | None = None,
    folder_before: Path | None = None,
    past: Sequence[history.Line] = (),
    curves: Sequence[Mapping[str, Any]] = (),
    title: str = "",
) -> str:
    """Return the page of a report.

    sections: its tables. folder: where its recordings lie. before, folder_before: another run, to compare
    with. past: earlier runs. curves: of training, see `report.curves`. title: of a page without a run.
    """
    changes = words.changes(report, before) if before is not None else []
    data, problems = _data(report, folder, run=1)
    if before is not None:
        older, more = _data(before, folder_before, run=0)
        data["policies"] += older["policies"]
        problems += more
    data["changes"] = [
        {"id": change.policy, "track": change.track, "lost": change.lost, "won": change.won}
        for change in changes
    ]
    data["history"], data["curves"] = history.points(past), curves
    endings = _endings(report)
    jinja = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return jinja.get_template("template.html.j2").render(
        report=report,
        before=before,
        changes=changes,
        change_mark=words.change_mark,
        verdict=words.verdict(report, changes if before is not None else None, title),
        lines=words.lines(report, changes),
        spots=series.blind_spots(report.success),
        spots_found=series.FOUND,
        sections=sections,
        endings=endings,
        about={name: text for name, text in _ABOUT.items() if any(name in row["counts"] for row in endings)},
        differs=_differing(report, before),
        problems=problems,
        past=past,
        curves=curves,
        style=(_HERE / "style.css").read_text(encoding="utf-8"),
        script="\n".join((_HERE / "js" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
        data=_embedded(data),
    )


def _data(report: Report, folder: Path | None, *, run: int) -> tuple[dict[str, Any], list[str]]:
    """Return what the scripts need, and a sentence for each recording that could not be read."""
    policies, problems = [], []
    for row in sorted(success.ranked(report.success), key=lambda row: row.policy in CONTEXT):
        found = episodes.recorded(row, folder)
        problems += [f"{row.policy}: {problem}" for problem in found.problems]
        policies.append(_policy(row, found, report.success, run))
    return {
        "policies": policies,
        "endings": [{"name": str(ending), "about": ABOUT[ending]} for ending in episodes.ENDINGS],
        "goal": GOAL_POSE,
        "outline": OUTLINE,
        "units": UNITS,
        "solved": SUCCESS_COVERAGE,
        "near": NEAR_COVERAGE,
        "period": CONTROL_PERIOD_MS,
        "latency": _latencies(report),
        "tokenizers": [
            {
                **row.model_dump(),
                "title": f"{row.tokenizer}, {row.data} demonstrations" if row.data else row.tokenizer,
            }
            for row in report.tokenizers
        ],
    }, problems


def _policy(row: Success, found: episodes.KeptRows, rows: Sequence[Success], run: int) -> dict[str, Any]:
    counted = episodes.columns(row)
    return {
        "id": words.policy_id(row, rows),
        "name": success.label(row) + ("" if run else " (other run)"),
        "run": run,
        "policy": row.policy,
        "is_pusht": row.track in TRACKS,
        "is_context": row.policy in CONTEXT,
        **_command(row),
        "episodes": counted,
        "lost": row.baseline.lost if row.baseline is not None else [],
        "won": row.baseline.won if row.baseline is not None else [],
        "recording": episodes.packed(found, counted["seed"]),
        "evidence": series.evidence(row),
        "rates": series.success(row),
        "rate": row.success_rate.model_dump(),
    }


def _command(row: Success) -> dict[str, Any]:
    """Return what `il-bench replay` calls the policy, and whether only a recording shows it.

    A project's function cannot be called by name; its row in the report has one.
    """
    named = row.checkpoint.removeprefix("zoo/")
    try:
        zoo.resolve(named)
    except IlBenchError:
        named = row.policy
    is_code = named == row.policy and named not in (EXPERT, *zoo.shipped())
    return {"spec": named, "is_code": is_code}


def _latencies(report: Report) -> list[dict[str, Any]]:
    kept = ("policy", "what", "batch", "device", "p50_ms", "p90_ms", "p99_ms", "quantiles_ms", "n")
    return [
        {**row.model_dump(include=set(kept)), "label": latency.label(row)}
        for row in report.latency
        if row.processed and row.p50_ms is not None
    ]


def _endings(report: Report) -> list[dict[str, Any]]:
    """Return how often each policy's episodes ended in each way, for a table."""
    found = []
    for row in sorted(success.ranked(report.success), key=lambda row: row.policy in CONTEXT):
        counts: dict[str, int] = {}
        for episode in row.episodes:
            ending = episode.ending or ("success" if episode.success else _UNKNOWN)
            counts[ending] = counts.get(ending, 0) + 1
        found.append(
            {"id": words.policy_id(row, report.success), "name": success.label(row), "counts": counts}
        )
    return found


def _differing(report: Report, before: Report | None) -> list[str]:
    """Say in words what of the environment differs between two runs."""
    if before is None:
        return []
    now, was = _flat(report.environment), _flat(before.environment)
    return [
        f"{name} was {was.get(name, 'not said')}, is {now.get(name, 'not said')}"
        for name in dict.fromkeys([*was, *now])
        if was.get(name) != now.get(name)
    ]


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{name} ")
        else:
            found[f"{above}{name}"] = str(value)
    return found


def _embedded(data: Mapping[str, Any]) -> str:
    """Return JSON that no HTML can end early: whatever it holds stays data."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
