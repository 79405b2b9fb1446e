"""The code blocks of README and docs, as a reader meets them.

    python -m tests.docs.blocks     # how many there are, and which are not run

A comment in a page's source, which no reader sees, says what a test needs to know:

    <!-- begin with: a clone, runs/mine -->            what the page presupposes, of `presupposed.MADE`
    <!-- not run: it wants a GPU -->                   the block below, and why
    <!-- tests add: il-bench train | --steps 50 -->    to such commands of the block below; `;` parts several
    <!-- exits with 1 -->                              the block below
    <!-- needs: human demonstrations -->               the block below; where there are none, it is left out

A block with a title is a file. A `text` block right below a command is what the command prints; its line
`...` stands for any lines.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"(?P<notes>(?:^<!-- [^\n]* -->\n)*)"
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.M | re.S,
)
#: Added to every such command: workers cost an import of LeRobot, and change no result.
_ONE_WORKER = {
    "pytest --benchmark": "--il-workers 1",
    "il-bench evaluate": "--workers 1",
    "il-bench stress": "--workers 1",
}
_NOTE = re.compile(r"<!-- (not run|tests add|exits with|needs):? ([^\n]*?) -->")
_BEGIN = re.compile(r"^<!-- begin with: (.*?) -->$", re.M)


@dataclass(frozen=True)
class Block:
    """A block. added: what tests add to commands, by their first words. output: what it prints."""

    line: int
    language: str
    text: str
    title: str | None
    not_run: str | None
    added: dict[str, str]
    status: int
    needs: str | None
    output: str | None

    @property
    def runs(self) -> bool:
        """Whether a test runs it; a file is written, and read by what is run after it."""
        return self.not_run is None and (self.language == "sh" or self.language == "python")

    def commands(self) -> list[str]:
        """Its command lines, without comments, each in one line; of a workflow those that it runs itself."""
        lines = [re.sub(r"\s+#.*", "", line).strip() for line in self.text.replace("\\\n", " ").splitlines()]
        if self.language == "yaml":
            lines = [line.removeprefix("- run: ") for line in lines if line.startswith("- run: ")]
        return (
            [re.sub(r"\s+", " ", line) for line in lines if line] if self.language in ("sh", "yaml") else []
        )

    def script(self) -> str:
        """Its commands with what tests add to them."""
        added = [*_ONE_WORKER.items(), *self.added.items()]
        lines = (
            (line, *(flags for begin, flags in added if line.startswith(begin))) for line in self.commands()
        )
        return "\n".join(map(" ".join, lines))


def blocks(page: Path) -> Iterator[Block]:
    """Every block of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        notes = dict(_NOTE.findall(found["notes"]))
        pairs = (part.split("|") for part in notes.get("tests add", "").split(";") if part)
        below = re.match(r"\n```text\n(.*?)^```$", text[found.end() :], re.M | re.S)
        yield Block(
            line=text.count("\n", 0, found.start()) + 1,
            language=found["language"],
            text=found["text"],
            title=found["title"],
            not_run=notes.get("not run"),
            added={begin.strip(): flags.strip() for begin, flags in pairs},
            needs=notes.get("needs"),
            status=int(notes.get("exits with", 0)),
            output=below[1] if below else None,
        )


def begins_with(page: Path) -> list[str]:
    """What a page presupposes, in its own words."""
    found = _BEGIN.search(page.read_text(encoding="utf-8"))
    return found[1].split(", ") if found else []


def name(page: Path) -> str:
    """The page as tests name it."""
    return page.relative_to(ROOT).as_posix()


def main() -> None:
    """Print what is run and what is not."""
    commands = python = left = 0
    for page in PAGES:
        for block in blocks(page):
            if block.not_run is not None:
                left += max(1, len(block.commands()))
                print(
                    f"not run: {name(page)}:{block.line}: {' && '.join(block.commands())} ({block.not_run})"
                )
            elif block.language == "sh":
                commands += len(block.commands())
            elif block.language == "python":
                python += 1
    print(f"run by tests: {commands} commands and {python} blocks of Python; not run: {left}")


if __name__ == "__main__":
    main()
