"""A tokenizer's vocabulary as a picture: its moves, how often each is used, and a demonstration."""

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from il_bench.pusht.geometry import GOAL_POSE, OUTLINE
from il_bench.report.rows import MOST_COUNTS, Demonstration, Move, TokenizerRow, Vocabulary
from il_bench.report.tables import shortened

COLUMNS = 8
FIRST_COLUMNS = 16  # of cells with what first tokens decode to alone
MOST_POSSIBLE = 10**6  # with more possible moves, nobody asks how many do not occur
_INNER = 0.8  # the part of a cell that a long move fills
_SQUARE = np.array([[0.03, 0.03], [0.97, 0.03], [0.97, 0.97], [0.03, 0.97]])
# Ten strong colours, then the same ten pale.
_COLORS = [to_hex(colormaps["tab20"](2 * number % 20 + number // 10)) for number in range(20)]
_GOAL, _FAINT, _REAL = "#a8d5a2", "0.93", "0.55"
_LINE, _MOST_LINES = 88, 3  # characters and lines of the episode in tokens


@rc_context({"text.parse_math": False})  # `$` is a character of names, not the beginning of a formula
def render(row: TokenizerRow) -> bytes:
    """Return the picture of a row that has a vocabulary, as a PNG."""
    buffer = io.BytesIO()
    draw(row).savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def draw(row: TokenizerRow) -> Figure:
    """Draw a row that has a vocabulary: axes "moves", "real", "decoded", "words", "use".

    A residual VQ also has "first", below "moves".
    """
    vocabulary = row.vocabulary
    assert vocabulary is not None
    n_first = -(-len(vocabulary.first) // FIRST_COLUMNS)  # rows
    figure = Figure(figsize=(13.6, 7.6 + 0.6 * n_first), layout="constrained")
    lost = f"{row.bits_per_chunk:.1f} bits a chunk, {row.l1_px:.1f} px lost"
    possible = row.codebook_size**row.num_quantizers  # one move for each sequence of tokens
    occur = f"{vocabulary.n_moves:,} of {possible:,} {'codes' if row.num_quantizers == 1 else 'moves'} occur"
    found = occur if possible <= MOST_POSSIBLE else f"{vocabulary.n_moves:,} different moves"
    figure.suptitle(f"{shortened(title(row))}: {found}, {lost}", fontsize=13)
    halves = figure.subfigures(1, 2, width_ratios=(1.12, 1.0), squeeze=False)[0]
    rows = [["moves"], ["first"]] if n_first else [["moves"]]
    heights = [COLUMNS, n_first * COLUMNS / FIRST_COLUMNS][: len(rows)]
    left = halves[0].subplot_mosaic(rows, height_ratios=heights)
    _draw_moves(left["moves"], row, vocabulary)
    if n_first:
        cell_px = _draw_cells(left["first"], vocabulary.first, vocabulary.relative, (n_first, FIRST_COLUMNS))
        shown = f"What a first token alone decodes to, the {len(vocabulary.first)} most used"
        left["first"].set_title(f"{shown}. Cell: {cell_px:.0f} px", fontsize=10)
    axes = halves[1].subplot_mosaic(
        [["real", "decoded"], ["words", "words"], ["use", "use"]], height_ratios=(1.0, 0.16, 0.72)
    )
    _draw_demonstration(axes["real"], axes["decoded"], axes["words"], vocabulary.demonstration)
    _draw_use(axes["use"], vocabulary, possible)
    return figure


def title(row: TokenizerRow) -> str:
    """Return a row's title: the tokenizer and its demonstrations."""
    return f"{row.tokenizer}, {row.data} demonstrations" if row.data else row.tokenizer


def _draw_moves(axes: Axes, row: TokenizerRow, vocabulary: Vocabulary) -> None:
    """Draw a cell for each move, the most used first, with its share of all chunks."""
    cell_px = _draw_cells(axes, vocabulary.moves, vocabulary.relative, (COLUMNS, COLUMNS))
    total = row.n_chunks or sum(vocabulary.counts)
    for number, count in enumerate(vocabulary.counts[: len(vocabulary.moves)]):
        share = f"{count / total:.1%}" if count / total >= 0.001 else "<0.1%"
        _write(axes, divmod(number, COLUMNS), share, 0.95, "right")
    where = "from the agent (black)" if vocabulary.relative else "in the arena,"
    above = f"The {len(vocabulary.moves)} most used moves, {where} to the large dot"
    cell = f"Left its tokens, right its share of all chunks. Colour: the first token. Cell: {cell_px:.0f} px"
    axes.set_title(f"{above}\n{cell}", fontsize=10)


def _draw_cells(axes: Axes, moves: Sequence[Move], relative: bool, size: tuple[int, int]) -> float:
    """Draw each move with its tokens in a cell of its own, coloured by its first token; return a cell's px.

    size: rows and columns of cells, in reading order. All moves have one scale, at which nine of ten fit into
    their cells: the longest may reach into a neighbour's, or they would make all others small.
    """
    n_rows, n_columns = size
    paths = np.array([move.path for move in moves])  # (M, steps, 2), px
    points = paths.reshape(-1, 2)
    origin = np.zeros(2) if relative else (points.min(axis=0) + points.max(axis=0)) / 2
    reach = max(float(np.quantile(np.abs(paths - origin).max(axis=(1, 2)), 0.9)), 1.0)
    scale = _INNER / 2 / reach  # cells per px
    places = np.arange(len(paths))
    corners = np.stack([places % n_columns, places // n_columns], axis=1).astype(float)  # (M, 2)
    centres = corners[:, None] + 0.5
    starts = centres if relative else centres[:, :0]
    drawn = np.concatenate([starts, centres + (paths - origin) * scale], axis=1)
    colors = _colors(moves)
    axes.add_collection(PolyCollection(corners[:, None] + _SQUARE, color=_FAINT))
    axes.add_collection(LineCollection(list(drawn), colors=colors, linewidths=1.6))
    axes.scatter(drawn[..., 0], drawn[..., 1], s=5, c=np.repeat(colors, drawn.shape[1]), zorder=2)
    axes.scatter(drawn[:, -1, 0], drawn[:, -1, 1], s=24, c=colors, zorder=2)
    if relative:
        axes.scatter(centres[..., 0], centres[..., 1], s=10, c="black", zorder=3)
    for number, move in enumerate(moves):
        text = "·".join(map(str, move.indices))
        text = text if len(text) <= 9 else f"{text[:8]}…"
        _write(axes, divmod(number, n_columns), text, 0.06, "left")
    axes.axis("off")
    axes.set(xlim=(0, n_columns), ylim=(n_rows, 0), aspect="equal")
    return 1.0 / scale


def _write(axes: Axes, cell: tuple[int, int], text: str, place: float, side: str) -> None:
    """Write into the cell in this row and column, `place` from its left edge."""
    label = axes.text(cell[1] + place, cell[0] + 0.08, text, fontsize=6.5, va="top", ha=side, color="0.3")
    label.set_in_layout(False)  # it lies inside the axes anyway, and measuring it takes long


def _colors(moves: Sequence[Move]) -> list[str]:
    return [_COLORS[move.indices[0] % len(_COLORS)] for move in moves]


def _draw_demonstration(real: Axes, decoded: Axes, words: Axes, shown: Demonstration) -> None:
    """Draw an episode as it was and as its tokens decode, and write as many tokens as there is room for."""
    n_chunks = len(shown.indices)
    points = np.array(shown.path + shown.decoded)
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    reach = 0.56 * float(np.ptp(points, axis=0).max()) + 5.0
    low, high = centre - reach, centre + reach
    x, y, angle = GOAL_POSE
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    goal = np.array(OUTLINE) @ turn + (x, y)
    for axes, path in ((real, shown.path), (decoded, shown.decoded)):
        axes.fill(*goal.T, color=_GOAL)
        if axes is decoded:
            axes.plot(*np.array(shown.path).T, color=_REAL, linewidth=0.8)
        for tokens, part in zip(shown.indices, np.split(np.array(path), n_chunks), strict=True):
            axes.plot(*part.T, ".-", color=_COLORS[tokens[0] % len(_COLORS)], linewidth=1.4, markersize=3)
        axes.plot(*shown.path[0], "o", color="black", markersize=5)
        axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal")
        axes.tick_params(labelsize=7)
    real.set_title(f"Held-out episode {shown.episode}: {n_chunks} chunks", fontsize=10)
    decoded.set_title("Decoded from its tokens (grey: real)", fontsize=10)
    text = "   ".join("·".join(map(str, tokens)) for tokens in shown.indices)
    lines = textwrap.wrap(text, _LINE, max_lines=_MOST_LINES, placeholder="  …")
    text = "in tokens:  " + "\n".join(lines)
    words.text(0.5, 1.0, text, fontsize=8, va="top", ha="center", color="0.25")
    words.axis("off")


def _draw_use(axes: Axes, vocabulary: Vocabulary, possible: int) -> None:
    """Draw a bar for each move, and leave room for those that never occur unless they are too many."""
    counts, colors = vocabulary.counts, _colors(vocabulary.moves)
    axes.stairs(counts, np.arange(len(counts) + 1) - 0.5, fill=True, color="0.75")
    axes.bar(range(len(colors)), counts[: len(colors)], width=1.0, color=colors)
    more, never = vocabulary.n_moves - len(counts), possible - vocabulary.n_moves
    end = possible if possible <= MOST_COUNTS else len(counts)
    axes.set(xlim=(-0.5, end - 0.5), xlabel="move, the most used first", ylabel="chunks")
    notes = ["grey: not drawn on the left"] if len(counts) > len(colors) else []
    notes += [f"{more:,} rarer ones left out"] if more else []
    notes += [f"{never:,} of {possible:,} never occur"] if never and possible <= MOST_POSSIBLE else []
    axes.set_title("\n".join(filter(None, ("How often each move is used", "; ".join(notes)))), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
