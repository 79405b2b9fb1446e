"""Write the reference pages of the documentation from the code.

    python benchmarks/reference.py [--output docs]

`tests/docs/test_reference.py` holds the pages against the code, so that a change of one needs the other.
"""

import argparse
import inspect
import json
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from il_bench import cli
from il_bench.gate.baselines import Baselines
from il_bench.plugin import fixtures, registry, selection
from il_bench.plugin.settings import OPTIONS
from il_bench.report.schema import Report, load
from il_bench.report.tables import published
from il_bench.rollout.endings import ABOUT
from il_bench.rollout.metrics import METRICS

_PROGRAM = "il-bench"


def commands() -> str:
    """Every command of `il-bench`, with its arguments and options."""
    parts = ["# Commands", "Each command prints this with `--help`."]
    for words, command in walk(typer.main.get_command(cli.app), (_PROGRAM,)):
        example = (command.epilog or "").removeprefix("Example: ")
        parts += [f"## {' '.join(words)}", _prose(command.help or ""), f"Example: `{example}`"]
        rows = [_parameter(each) for each in command.params if each.name != "help"]
        if rows:
            parts.append(_table(("", "default", ""), rows))
    return "\n\n".join(parts) + "\n"


def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that is no group, with the words that call it."""
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, each in command.commands.items():
        yield from walk(each, (*words, name))


def _parameter(parameter: Any) -> tuple[str, str, str]:
    """Name, default and help of a parameter: of typer's own classes, whatever it has of click in them."""
    is_option = parameter.opts[0].startswith("-")
    names = " ".join((*parameter.opts, *(f"/ {each}" for each in parameter.secondary_opts)))
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    shown = "" if default in (None, False, (), []) or callable(default) else f"`{default}`"
    return f"`{names if is_option else names.upper()}`", shown, _prose(parameter.help or "")


def options() -> str:
    """Every option of the plugin."""
    rows = []
    for option in OPTIONS.values():
        choices, metavar = option.parser.get("choices"), option.parser.get("metavar")
        value = "|".join(choices) if choices else metavar or ""
        rows.append(
            (f"`{option.flag}{value and '=' + value}`", _prose(option.parser["help"].replace("%%", "%")))
        )
    head = '# Options of pytest\n\n`pytest --help` lists them in the group "il_bench".\n\n'
    return head + _table(("option", ""), rows) + "\n"


#: Those for users, in the order of the page; the others are the suite's own.
_FIXTURES = {
    "evaluate": fixtures._evaluate,
    "gate": fixtures.gate,
    "policy": fixtures._policy,
    "tokenizer": fixtures.tokenizer,
    "pusht_env": fixtures.pusht_env,
    "pusht_dataset": fixtures.pusht_dataset,
    "expert": fixtures.expert,
}


def fixtures_and_hooks() -> str:
    """Every fixture, marker and hook of the plugin."""
    parts = ["# Fixtures and hooks", "Every test can use these fixtures; no option is needed.", "## Fixtures"]
    for name, definition in _FIXTURES.items():
        parts += [f"### {name}", _prose(inspect.getdoc(inspect.unwrap(_function(definition))) or "")]
    parts += ["## Markers", _table(("marker", "what"), [(f"`{n}`", m) for n, m in selection.MARKERS.items()])]
    hook = registry.pytest_il_bench_register
    parts += ["## Hooks", f"### {hook.__name__}", _prose(inspect.getdoc(hook) or "")]
    parts += ["The argument `registry` has these methods:", "::: il_bench.plugin.registry.Registry"]
    options = ("options:", "  show_root_heading: false", "  show_root_toc_entry: false", "  heading_level: 3")
    parts[-1] += "\n" + "\n".join(f"    {line}" for line in options)
    return "\n\n".join(parts) + "\n"


def _function(definition: Any) -> Any:
    """The function behind a fixture, whatever pytest makes of it."""
    return getattr(definition, "__wrapped__", getattr(definition, "_fixture_function", definition))


_MEASURED = """# One rollout gives every number that people publish

<!-- begin with: a clone -->

On keypoints, all 1,000 test seeds, with 95 % intervals. [What each metric is](../reference/metrics.md) and
[what others publish in it](../explanation/published.md) are on pages of their own. Measure these again with

<!-- tests add: make bench | ARGS="-m success --il-policy bet" -->
```sh
make bench EPISODES=1000
il-bench metrics il-bench-report
```
"""
_MEASURED_END = """Success ends an episode here, just above a coverage of 0.95. So a policy that always
succeeds has a `mean_final_coverage` little above 0.95. Where a policy plays on to the time-out, it may push
the block out again, and coverage and last reward come out lower."""


_PUBLISHED = """A table for each metric, the best first: only numbers of the same metric compare. All were
measured on other start states than il_bench's, mostly with camera images and human demonstrations. They are
context, and no gate.

Trust: *primary* is the page, card, code or text of those who measured it, *secondary* another text that
quotes it, *unrefereed* a personal repository or model card. `il-bench metrics` prints the same beside your
own policies."""


def published_results() -> str:
    """What others publish, metric by metric."""
    parts = ["# Published results", _prose(_PUBLISHED)]
    for metric in METRICS.values():
        known = [each for each in published("results") if metric.name in each.values]
        if known:
            known.sort(key=lambda each: each.values[metric.name], reverse=metric.higher_is_better)
            rows = [
                (
                    each.label,
                    each.track,
                    f"{each.values[metric.name]:g}",
                    str(each.n or ""),
                    each.source,
                    each.trust,
                )
                for each in known
            ]
            head = ("policy", "sees", metric.name, "episodes", "source", "trust")
            parts += [f"## {metric.name}", _prose(metric.about).capitalize() + ".", _table(head, rows)]
    return "\n\n".join(parts) + "\n"


def measured() -> str:
    """Every metric of the shipped policies, of the run in benchmarks/results/metrics.json."""
    rows = load(Path(__file__).parent / "results" / "metrics.json").success
    names = [f"`{row.policy}`" for row in rows]
    lines = []
    for name, metric in METRICS.items():
        found = [row.metrics[name].model_dump().values() for row in rows]
        lines.append((f"`{name}`", *(metric.text(*each, digits=metric.digits) for each in found)))
    return f"{_MEASURED}\n{_table(('metric', *names), lines)}\n\n{_MEASURED_END}\n"


def metrics() -> str:
    """Every metric."""
    rows = [
        (f"`{m.name}`", _prose(m.about), _prose(m.publishers), "yes" if m.gated else "")
        for m in METRICS.values()
    ]
    head = "# Metrics\n\nEach is a mean over the episodes that have a value.\n\n"
    table = _table(("metric", "what", "published by", "can be a target"), rows)
    endings = "## Endings\n\nWhy an episode ended, as the page counts it and `report.json` names it. "
    endings += "Of those that fit a failure in PushT, the first counts. Worked out from the block's pose and "
    endings += "coverage at every step, in float64, whether or not the episode is recorded.\n\n"
    endings += _table(("ending", "what"), [(f"`{name}`", text) for name, text in ABOUT.items()])
    return f"{head}{table}\n\n{endings}\n"


def report() -> str:
    """The fields of report.json."""
    head = "Every other view of a run is made from it. Fields are added, never renamed."
    return _model_page("report.json", Report, head, "report.schema.json")


def baselines() -> str:
    """The fields of baselines.json."""
    head = (
        "People declare targets; `pytest --benchmark --il-update-baselines` writes baselines. "
        "An unknown field is an error."
    )
    return _model_page("baselines.json", Baselines, head, "baselines.schema.json")


def _model_page(title: str, model: type[BaseModel], head: str, schema: str) -> str:
    parts = [f"# {title}", head, f"[JSON Schema]({schema}), for `check-jsonschema` and editors."]
    top = model.model_json_schema(by_alias=True)
    definitions = {model.__name__: top, **top.get("$defs", {})}
    for name, part in definitions.items():
        if "properties" not in part:
            continue
        required = part.get("required", ())
        rows = [
            (
                f"`{field}`",
                _type(about, definitions),
                "" if field in required else _json(about.get("default")),
            )
            for field, about in part["properties"].items()
        ]
        parts += [
            f"## {name}",
            _prose(part.get("description", "")),
            _table(("field", "type", "default"), rows),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _json(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value)}`"


def _type(about: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in about:
        name = about["$ref"].rsplit("/", 1)[-1]
        named = definitions[name]
        return f"[{name}](#{name.lower()})" if "properties" in named else _type(named, definitions)
    if "anyOf" in about:
        return " or ".join(_type(each, definitions) for each in about["anyOf"])
    if "const" in about or "enum" in about:
        return " or ".join(f"`{json.dumps(each)}`" for each in about.get("enum", [about.get("const")]))
    kind = str(about.get("type", "any"))
    if kind == "array" and "items" in about:
        return f"list of {_type(about['items'], definitions)}"
    values = about.get("additionalProperties") or next(
        iter(about.get("patternProperties", {}).values()), None
    )
    if kind == "object" and isinstance(values, dict):
        return f"object of {_type(values, definitions)}"
    return kind


def _prose(text: str) -> str:
    """A help text or docstring as Markdown: its paragraphs, without line breaks."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return re.sub(r"`+", "`", "\n\n".join(paragraphs))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in cells] for cells in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def pages() -> dict[str, str]:
    """The content of every generated file by its path under docs/."""
    schemas = {"report": Report, "baselines": Baselines}
    return {
        "explanation/published.md": published_results(),
        "results/metrics.md": measured(),
        "reference/commands.md": commands(),
        "reference/options.md": options(),
        "reference/fixtures.md": fixtures_and_hooks(),
        "reference/metrics.md": metrics(),
        "reference/report.md": report(),
        "reference/baselines.md": baselines(),
        **{
            f"reference/{name}.schema.json": json.dumps(m.model_json_schema(by_alias=True), indent=1) + "\n"
            for name, m in schemas.items()
        },
    }


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs"))
    folder = parser.parse_args().output
    for name, content in pages().items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
