"""A fuzz of the files we read: every field of a valid file, at any depth, changed, removed, doubled or added.

    @pytest.mark.parametrize("examples", FUZZ)
    def test_no_third_outcome(folder: Path, examples: int) -> None:
        fuzz(folder / "report.json", schema.load, schema.save, examples=examples)

Each example is the valid file with up to three changes, written in its place. The property:

- either `read(path)` accepts it, and what `write(path, value)` makes of the value reads as the same again;
- or it raises one IlBenchError: one printable line that names the file and a changed field, or one above it.

Anything else fails the test: another exception, a warning of ours, a hang, a file that is taken for another.
Hypothesis then prints the smallest change that shows it. A few hundred examples run in every `make test`;
10,000 of each file, at random, with `pytest -m slow`. `fuzz` returns how many were accepted and refused.

Files that are no single JSON object: `form=LINES` for one object a line, `form=TOML` for TOML.
"""

import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from il_bench.errors import IlBenchError

#: For `pytest.mark.parametrize("examples", FUZZ)`.
FUZZ = [300, pytest.param(10_000, marks=pytest.mark.slow)]


class Verbatim(str):
    """JSON text that no Python value gives."""

    def __repr__(self) -> str:
        return f"{self[:10]}.. ({len(self)} characters)"


_DEEP, _DEEPEST = (Verbatim("[" * depth + "]" * depth) for depth in (150, 100_000))
#: What takes the place of any value.
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        7,
        0.5,
        -0.5,
        1e-12,
        1e18,
        1e308,
        -1e308,
        2**31,
        2**63,
        10**30,
        10**299,
    ),
    *(
        math.nan,
        math.inf,
        -math.inf,
        Verbatim("9" * 5000),
        Verbatim("1e999"),
        Verbatim("-0"),
        Verbatim("1.0"),
    ),
    *(
        "",
        " ",
        "0",
        "nan",
        "null",
        "..",
        "/dev/zero",
        "~nosuchuser",
        "a\nb",
        "\x1b[31m",
        "\0",
        "$x_$",
        "é",
        "x" * 300,
    ),
    *(Verbatim('"\\ud800"'), _DEEP, _DEEPEST),
    *([], [None], [0], [math.nan], [[]], {}, {"": 0}, {"a": {"a": 1}}, {"type": "x"}),
)
ODD_NAMES = ("extra", "", "type", "a.b", "x" * 300, "\x1b[31m")


@dataclass(frozen=True)
class Form:
    """How the content of a file is read, and written with `Verbatim` values."""

    load: Callable[[str], Any]
    dump: Callable[[Any], str]


def _json(value: Any) -> str:
    if isinstance(value, Verbatim):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",\n".join(f"{json.dumps(name)}: {_json(each)}" for name, each in _pairs(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return json.dumps(value)


def _toml(value: Any) -> str:
    assume(value is not None and not isinstance(value, Verbatim))  # TOML has no such values
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(each)}" for name, each in _pairs(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value) if isinstance(value, float) else json.dumps(value)


def _toml_file(content: Any) -> str:
    assume(isinstance(content, Mapping))
    return "".join(f"{json.dumps(name)} = {_toml(each)}\n" for name, each in _pairs(content))


JSON = Form(json.loads, _json)
LINES = Form(
    lambda text: [json.loads(line) for line in text.splitlines()],
    lambda content: (
        "".join(_json(line).replace("\n", " ") + "\n" for line in content)
        if isinstance(content, list)
        else _json(content)
    ),
)
TOML = Form(tomllib.loads, _toml_file)


class _Twice(str):
    """A key that an object has beside the same one."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def _pairs(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(str(name), value) for name, value in content.items()]


@dataclass(frozen=True)
class Change:
    """One change of a content: where, what, and with which value."""

    place: tuple[str | int, ...]
    what: str
    value: Any = None
    name: str = ""

    def made(self, content: Any) -> Any:
        """The changed content, itself changed; as it is where an earlier change took the place away."""
        if not self.place:
            return self._of(content)
        above, last = content, self.place[-1]
        try:
            for part in self.place[:-1]:
                above = above[part]
            here = above[last]
        except (LookupError, TypeError):
            return content
        if not isinstance(above, dict | list):
            return content
        if self.what == "remove":
            del above[last]
        elif self.what == "double" and isinstance(above, dict):
            above[_Twice(last)] = self.value
        elif self.what == "double":
            above.insert(last, deepcopy(here))
        else:
            above[last] = self._of(here)
        return content

    def _of(self, here: Any) -> Any:
        if self.what == "add" and isinstance(here, dict):
            return {**here, self.name: self.value}
        if self.what == "add" and isinstance(here, list):
            return [*here, self.value]
        return _kin(here)[self.value % len(_kin(here))] if self.what == "kin" else self.value

    def names(self) -> set[str]:
        """The fields of which an error should name one."""
        found = {str(part) for part in self.place if not isinstance(part, int)}
        return {*found, self.name} if self.what == "add" else found


def _kin(value: Any) -> list[Any]:
    """Values like this one, which are wrong in a subtler way."""
    if isinstance(value, bool):
        return [int(value), str(value).lower(), not value]
    if isinstance(value, int | float):
        return [str(value), -value, value + 0.5, value + 1, value - 1, value * 1000, float(value), [value]]
    if isinstance(value, str):
        return [value.upper(), value.lower(), value + " ", value[:-1], [value], {value: value}, value + "\0"]
    if isinstance(value, list):
        return [[], value + value, value[::-1], value[:-1], [value], {str(n): x for n, x in enumerate(value)}]
    if isinstance(value, dict):
        return [{}, [value], list(value.values()), list(value), dict(list(value.items())[:-1])]
    return [0, "", "none"]


def places(content: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a content; of long lists the first two and the last."""
    found = [place]
    if isinstance(content, dict):
        parts: list[Any] = list(content)
    else:
        parts = list(range(len(content))) if isinstance(content, list) else []
        parts = parts if len(parts) <= 3 else [0, 1, len(parts) - 1]
    for part in parts:
        found += places(content[part], (*place, part))
    return found


def _changes(content: Any) -> st.SearchStrategy[list[Change]]:
    everywhere = places(content)
    place, below = st.sampled_from(everywhere), st.sampled_from(everywhere[1:])
    odd, name = st.sampled_from(ODD), st.sampled_from(ODD_NAMES)
    change = st.one_of(
        st.builds(Change, place, st.just("set"), odd),
        st.builds(Change, place, st.just("kin"), st.integers(0, 7)),
        st.builds(Change, below, st.just("remove")),
        st.builds(Change, below, st.just("double"), odd),
        st.builds(Change, place, st.just("add"), odd, name),
    )
    return st.lists(change, min_size=1, max_size=3)


def _cuts(content: bytes) -> st.SearchStrategy[tuple[int, bytes]]:
    """Where bytes of the file are replaced, and by what: a cut, a flipped byte, an insertion."""
    junk = st.sampled_from([b"", b"\xff", b"\xef\xbb\xbf", b"\0", b"{", b"}", b'"', b",", b"0", b"\n"])
    return st.tuples(st.integers(0, len(content)), junk)


def fuzz(
    path: Path,
    read: Callable[[Path], Any],
    write: Callable[[Path, Any], object] | None = None,
    *,
    examples: int,
    form: Form = JSON,
    unnamed: str | None = None,
    equal: Callable[[Any, Any], bool] = lambda one, other: bool(one == other),
) -> Counter[str]:
    """Check the property on so many examples; the module's docstring says what it is.

    Args:
        path: a valid file; it is itself again afterwards.
        read: reads the file, as the program does; also use the value there, where that can fail.
        write: writes a value that was read, as the program does; None: no round trip is checked.
        examples: how many; 300 or fewer are the same in every run.
        form: JSON, LINES or TOML.
        unnamed: a pattern of errors that need not name the field, such as those about two that do not fit.
        equal: whether two values that were read are the same.
    """
    original = path.read_bytes()
    content = form.load(original.decode())
    counts: Counter[str] = Counter()

    def check(changed: set[str]) -> None:
        try:
            value = read(path)
        except IlBenchError as error:
            counts["refused"] += 1
            message = str(error)
            assert message.isprintable() and len(message) <= 2000, message
            assert path.name in message, f"the file is not named: {message}"
            is_named = not changed or any(_shown(name) in message for name in changed)
            assert is_named or (unnamed and re.search(unnamed, message)), f"none of {changed}: {message}"
            return
        counts["accepted"] += 1
        if write is not None:
            write(path, value)
            assert equal(read(path), value), "another value after a round trip"

    @settings(
        deadline=None,
        max_examples=examples,
        derandomize=examples <= 300,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(_changes(content), _changes(content), _changes(content), _cuts(original)))
    def run(example: list[Change] | tuple[int, bytes]) -> None:
        if isinstance(example, tuple):
            at, junk = example
            path.write_bytes(original[:at] + junk + (original[at + 1 :] if junk else b""))
            check(set())
            return
        changed = deepcopy(content)
        for change in map(deepcopy, example):  # one by one: two may have the same list
            changed = change.made(changed)
        text = form.dump(changed)
        assume(len(text) < 2**22)
        path.write_text(text)
        # No field is to blame where everything is another, or where no parser gets to it.
        is_whole = any(not change.names() for change in example)
        is_whole |= isinstance(content, list) and any(not change.place for change in example)
        is_whole |= any(change.value == _DEEPEST for change in example)
        check(set() if is_whole else set().union(*(change.names() for change in example)))

    try:
        read(path)
        run()
    finally:
        path.write_bytes(original)
    assert counts["refused"], "nothing was refused"
    print(f"{path.name}: {counts['accepted']:,} accepted, {counts['refused']:,} refused")
    return counts


def _shown(name: str) -> str:
    """A name as an IlBenchError shows it."""
    return str(IlBenchError(name))[:60]
