"""The results part of a model card on the Hub: what a reader sees, and what the Hub itself reads.

Everything else in the card is a person's, and stays to the byte.
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml
from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

from il_bench.errors import IlBenchError
from il_bench.protocol import MAX_STEPS, SEED_STARTS, SIMULATOR, TRACKS
from il_bench.report.schema import Report, Success
from il_bench.report.success import target_text
from il_bench.rollout.metrics import METRICS

BEGIN = "<!-- il_bench results: `il-bench card` writes what follows, up to the end mark, anew -->"
END = "<!-- end of il_bench results -->"
#: What LeRobot's card says where results belong.
PLACEHOLDER = "_No evaluation results have been provided for this policy yet._"
_NEW = "---\nlibrary_name: lerobot\npipeline_tag: robotics\ntags:\n- lerobot\n- robotics\n---\n"
_WAY_OUT = "correct it, or take it out, and give the command again"
_EVALUATOR = "evaluated_by"
_METADATA = re.compile(r"\A---\n(|.*?\n)---[ \t]*\n", re.S)
_MODEL_INDEX = re.compile(r"^model-index:[^\n]*\n(?:\n*[ \-][^\n]*\n)*", re.M)


def filled(text: str, row: Success, report: Report, *, name: str, where: str) -> str:
    """Return the card with the results of a row; the same again changes nothing.

    text: the card, "" for none yet. name: the model's, where the card has none. where: the file, for errors.
    """
    ends = "\r\n" if "\r\n" in text and "\n" not in text.replace("\r\n", "") else "\n"
    card = text.replace(ends, "\n")
    if not card.strip():
        card = f"{_NEW}\n# {name}\n"
    return _with_part(_with_metadata(card, row, report, name, where), row, report, where).replace("\n", ends)


def part(row: Success, report: Report) -> str:
    """Return the part for readers, in Markdown, without its marks."""
    is_pusht = row.track in TRACKS
    fixed = "of a fixed number of episodes"
    early = "of a run that ended when its gates were decided"
    shown = f"{row.interval}, {fixed if row.interval == 'Clopper-Pearson' else early}"
    most = f" of at most {MAX_STEPS} steps, on {row.track}" if is_pusht else ""
    lines = [
        f"### {_environment(row)[0]}",
        "",
        f"{row.n_episodes:,} episodes{most}, from {_starts(row)}. 95 % intervals in brackets: {shown}.",
        "",
        "| metric | value | what it is | who publishes it |",
        "|---|---|---|---|",
    ]
    for metric, found in _measured(row):
        value = metric.text(*found, digits=metric.digits)
        lines.append(f"| {metric.name} | {value} | {metric.about} | {metric.publishers} |")
    if row.target is not None:
        lines += ["", f"Against its target: {target_text(row.target)}."]
    packages = dict(report.environment.get("packages") or {})
    versions = ", ".join(f"{package} {version}" for package, version in packages.items())
    dynamics = f"Dynamics of {SIMULATOR}. " if is_pusht else ""
    lines += ["", f"{dynamics}Versions: {versions}. Weights: sha256 `{row.sha256}`."]
    if is_pusht:
        command = f"    il-bench evaluate FOLDER_OR_HUB_ID {_again(row)}"
        lines += ["", "To run it again, with il_bench installed:", "", command]
    return "\n".join(lines)


def results(row: Success, report: Report) -> list[EvalResult]:
    """Return the metrics as the Hub's metadata have them."""
    version = dict(report.environment.get("packages") or {}).get("il-bench", "")
    name, kind, config = _environment(row)
    dataset: dict[str, Any] = {
        "task_type": "robotics",
        "task_name": "Robotics",
        "dataset_type": kind,
        "dataset_name": name,
        "dataset_config": config,
        "dataset_split": _starts(row),
        "dataset_args": {"episodes": row.n_episodes, _EVALUATOR: f"il_bench {version}".strip()},
    }
    return [
        EvalResult(
            **dataset,
            metric_type=metric.name,
            metric_name=metric.about,
            metric_value=round(found[0], 4),
            metric_args={
                "low": round(found[1], 4),
                "high": round(found[2], 4),
                "interval": f"95 % {row.interval}",
            },
        )
        for metric, found in _measured(row)
    ]


def _measured(row: Success) -> list[tuple[Any, tuple[float, float, float]]]:
    known = [(metric, row.measured(name)) for name, metric in METRICS.items()]
    return [(metric, (found.estimate, found.low, found.high)) for metric, found in known if found is not None]


def _environment(row: Success) -> tuple[str, str, str | None]:
    """Return the name, the type and the configuration of what the episodes ran in."""
    return ("PushT", "gym_pusht/PushT-v0", row.track) if row.track in TRACKS else (row.track, row.track, None)


def _starts(row: Success) -> str:
    """Return for example 'test seeds 200000-200999'."""
    if not row.episodes:
        return "seeds that the report does not say"
    first, last = row.episodes[0].seed, row.episodes[-1].seed
    ranges = [f"{name} " for name, start in SEED_STARTS.items() if start <= first < start + 100_000]
    return f"{''.join(ranges)}seeds {first}-{last}"


def _again(row: Success) -> str:
    names = [name for name, start in SEED_STARTS.items() if row.episodes and row.episodes[0].seed == start]
    return f"--seeds {names[0]} --episodes {row.n_episodes}" if names else f"--episodes {row.n_episodes}"


def _with_part(card: str, row: Success, report: Report, where: str) -> str:
    new = f"{BEGIN}\n{part(row, report)}\n\n{END}"
    n_begins, n_ends = card.count(BEGIN), card.count(END)
    if n_begins or n_ends:
        if (n_begins, n_ends) != (1, 1) or card.index(END) < card.index(BEGIN):
            raise IlBenchError(f"{where}: il_bench's marks around its results are damaged; {_WAY_OUT}")
        before, after = card[: card.index(BEGIN)], card[card.index(END) + len(END) :]
        return before + new + after
    if card.count(PLACEHOLDER) == 1:
        return card.replace(PLACEHOLDER, new)
    return f"{card}{'' if card.endswith(chr(10)) else chr(10)}\n{new}\n"


def _with_metadata(card: str, row: Success, report: Report, name: str, where: str) -> str:
    """Put the results into `model-index`, beside those that others have put there."""
    found = _METADATA.match(card)
    block = found[1] if found else ""
    try:
        known = yaml.safe_load(block) or {}
    except yaml.YAMLError as error:
        line = str(error).splitlines()[0]
        raise IlBenchError(f"{where}: its metadata are not valid YAML ({line}); {_WAY_OUT}") from None
    if not isinstance(known, dict):
        raise IlBenchError(f"{where}: its metadata are not fields with values; {_WAY_OUT}")
    index = _merged(known.get("model-index"), results(row, report), name, where)
    dumped = yaml.dump({"model-index": index}, allow_unicode=True, sort_keys=False)
    if _MODEL_INDEX.search(block):
        block = _MODEL_INDEX.sub(lambda _: dumped, block, count=1)
    else:
        block += dumped
    return f"---\n{block}---\n" + (card[found.end() :] if found else f"\n{card}")


def _merged(index: object, ours: Sequence[EvalResult], name: str, where: str) -> list[dict[str, Any]]:
    """Return a model-index with our results in the place of those that we once put there."""
    new = eval_results_to_model_index(name, list(ours))
    if index is None:
        return new
    models: list[Any] = index if isinstance(index, list) else []
    first = models[0] if models and all(isinstance(each, dict) for each in models) else None
    known = [] if first is None else first.get("results", [])
    if first is None or not isinstance(known, list):
        raise IlBenchError(f"{where}: model-index is not a list of models with results; {_WAY_OUT}")
    others = [each for each in known if not _is_ours(each)]
    return [{**first, "results": [*others, *new[0]["results"]]}, *models[1:]]


def _is_ours(result: Any) -> bool:
    dataset = result.get("dataset") if isinstance(result, dict) else None
    arguments = dataset.get("args") if isinstance(dataset, dict) else None
    by = arguments.get(_EVALUATOR) if isinstance(arguments, dict) else None
    return isinstance(by, str) and by.startswith("il_bench")
