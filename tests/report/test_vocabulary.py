"""Where in the picture of a vocabulary its moves are drawn: places on the page, y downwards as in PushT."""

from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from il_bench.pusht.geometry import GOAL_POSE, block_keypoints
from il_bench.report import vocabulary as pictures
from il_bench.report.rows import Move, TokenizerRow

AGENT = (256.0, 256.0)
# Each another way, another length, another first token; nine, so that there is a second row of cells.
STEPS = [(30, 0), (0, 28), (-26, 0), (0, -24), (16, 16), (-14, 14), (-12, -12), (10, -20), (8, 22)]
TOKENS = [(3, 1), (0, 2), (1, 0), (2, 2), (4, 0), (5, 1), (6, 3), (7, 0), (8, 1)]
COUNTS = (90, 80, 70, 60, 50, 40, 30, 20, 10, 4, 3)  # two that are used and not drawn
EPISODE = [[(100.0, 50.0), (110.0, 50.0)], [(120.0, 60.0), (120.0, 90.0)], [(90.0, 95.0), (60.0, 95.0)]]
DECODED = [[(102.0, 52.0), (111.0, 53.0)], [(118.0, 62.0), (121.0, 85.0)], [(93.0, 91.0), (61.0, 97.0)]]


def paths(relative: bool) -> list[tuple[tuple[float, float], ...]]:
    x, y = (0.0, 0.0) if relative else AGENT
    return [tuple((x + k * dx, y + k * dy) for k in (1, 2)) for dx, dy in STEPS]


def row_of(relative: bool = True, **changes: Any) -> TokenizerRow:
    moves = [{"indices": tokens, "path": path} for tokens, path in zip(TOKENS, paths(relative), strict=True)]
    vocabulary = {
        **{"relative": relative, "moves": moves, "n_moves": len(COUNTS), "counts": COUNTS},
        "demonstration": {
            **{"episode": 7, "indices": ((1, 0), (0, 2), (5, 1))},
            **{"path": [*chain(*EPISODE)], "decoded": [*chain(*DECODED)]},
        },
    }
    row = {
        **{"tokenizer": "mine", "data": "expert", "n_chunks": 500, "vocabulary": vocabulary | changes},
        **{"codebook_size": 9, "num_quantizers": 2, "bits_per_chunk": 6.3},
        **{"l1_px": 3.0, "usage": 1.0, "perplexity": 8.0},
    }
    return TokenizerRow.model_validate(row)


def drawn_of(row: TokenizerRow) -> Figure:
    figure = pictures.draw(row)
    figure.draw_without_rendering()  # the layout is decided now
    return figure


@pytest.fixture(scope="module")
def figure() -> Figure:
    return drawn_of(row_of())


class Moves:
    """The axes of the moves, its cells and lines."""

    def __init__(self, relative: bool) -> None:
        self.relative = relative
        self.axes = axes_of(drawn_of(row_of(relative)), "moves")
        self.cells, self.lines = cells_of(self.axes), lines_of(self.axes)


@pytest.fixture(scope="module", params=[True, False], ids=["relative", "absolute"])
def moves(request: pytest.FixtureRequest) -> Moves:
    return Moves(request.param)


def axes_of(figure: Figure, label: str) -> Axes:
    (axes,) = (axes for axes in figure.axes if axes.get_label() == label)
    return axes


def on_page(axes: Axes, points: Any) -> Any:
    """Where points (N, 2) of the axes are seen, in px of the page from its top left corner."""
    seen = axes.transData.transform(np.asarray(points, dtype=float))
    height = axes.get_figure(root=True).bbox.height  # type: ignore[union-attr]
    return np.column_stack([seen[:, 0], height - seen[:, 1]])


def only(axes: Axes, kind: type[Collection]) -> Any:
    (found,) = (each for each in axes.collections if type(each) is kind)
    return found


def lines_of(axes: Axes) -> list[Any]:
    return [on_page(axes, segment) for segment in only(axes, LineCollection).get_segments()]


def cells_of(axes: Axes) -> list[Any]:
    """Each cell's (left, top, right, bottom), in the order of the moves."""
    corners = [on_page(axes, path.vertices[:-1]) for path in only(axes, PolyCollection).get_paths()]
    return [np.concatenate([each.min(axis=0), each.max(axis=0)]) for each in corners]


def middle(cell: Any) -> Any:
    return (cell[:2] + cell[2:]) / 2


# The vocabulary


def test_cells_stand_in_reading_order_and_do_not_touch(moves: Moves) -> None:
    cells = moves.cells
    assert len(cells) == len(STEPS)
    first_row, second_row = cells[: pictures.COLUMNS], cells[pictures.COLUMNS :]
    assert all(one[2] < other[0] for one, other in pairwise(first_row)), "to the right"
    assert all(cell[1] == pytest.approx(first_row[0][1]) for cell in first_row)
    assert second_row[0][0] == pytest.approx(first_row[0][0]) and second_row[0][1] > first_row[0][3], "below"
    assert all(cell[2] - cell[0] == pytest.approx(cell[3] - cell[1]) for cell in cells), "square"


def test_each_move_is_drawn_in_its_own_cell_by_one_scale_and_the_right_way_round(moves: Moves) -> None:
    """The same number of px of the page for each px of the arena, to the right and down alike."""
    lines = moves.lines
    assert len(lines) == len(STEPS)
    real = [np.array(path) for path in paths(moves.relative)]
    if moves.relative:  # from the agent, in the middle of the cell
        real = [np.vstack([[0.0, 0.0], path]) for path in real]
        origin = np.zeros(2)
    else:  # the arena's part that moves end in is the same in each cell, its centre the cell's
        points = np.concatenate(real)
        origin = (points.min(axis=0) + points.max(axis=0)) / 2
    (scale,) = {round(float(np.ptp(lines[0][:, 0]) / np.ptp(real[0][:, 0])), 6)}
    assert scale > 0
    for cell, line, path in zip(moves.cells, lines, real, strict=True):
        np.testing.assert_allclose(line, middle(cell) + scale * (path - origin), atol=0.01)


def test_nine_of_ten_moves_stay_within_their_cells(moves: Moves) -> None:
    pairs = list(zip(moves.cells, moves.lines, strict=True))
    inside = [(line >= cell[:2]).all() and (line <= cell[2:]).all() for cell, line in pairs]
    assert sum(inside) >= 0.9 * len(STEPS) - 1
    longest = max(np.abs(line - middle(cell)).max() for cell, line in pairs)
    assert longest > 0.3 * (moves.cells[0][2] - moves.cells[0][0]), "and are not dots"


def test_the_title_says_how_many_px_a_cell_is(moves: Moves) -> None:
    """What is not drawn of the cell, its border, counts: from a cell to the next."""
    path, said = paths(moves.relative)[0], moves.axes.get_title()
    start = (0.0, 0.0) if moves.relative else path[0]
    pitch, length = moves.cells[1][0] - moves.cells[0][0], abs(path[-1][0] - start[0])
    assert f"Cell: {pitch * length / np.ptp(moves.lines[0][:, 0]):.0f} px" in said
    assert ("from the agent" in said) is moves.relative


def test_dots_are_on_the_line_a_large_one_at_its_end_a_black_one_at_the_agent(moves: Moves) -> None:
    axes, lines = moves.axes, moves.lines
    dots = [each for each in axes.collections if isinstance(each, PathCollection)]
    steps, ends, *agents = [on_page(axes, each.get_offsets()) for each in dots]
    np.testing.assert_allclose(steps, np.concatenate(lines), atol=0.01)
    np.testing.assert_allclose(ends, [line[-1] for line in lines], atol=0.01)
    assert dots[1].get_sizes().min() > dots[0].get_sizes().max()
    assert len(agents) == moves.relative
    if moves.relative:
        np.testing.assert_allclose(agents[0], [middle(cell) for cell in moves.cells], atol=0.01)
        assert {to_hex(color) for color in dots[2].get_facecolors()} == {"#000000"}
    expected = [to_hex(color) for color in only(axes, LineCollection).get_colors()]
    assert [to_hex(color) for color in dots[1].get_facecolors()] == expected
    per_line = [to_hex(color) for color in dots[0].get_facecolors()]
    assert per_line == [color for color, line in zip(expected, lines, strict=True) for _ in line]


def test_tokens_and_shares_stand_in_the_cell_of_their_move(figure: Figure) -> None:
    axes = axes_of(figure, "moves")
    cells = cells_of(axes)
    expected = ["3·1", "0·2", "1·0", "2·2", "4·0", "5·1", "6·3", "7·0", "8·1"]
    shares = ["18.0%", "16.0%", "14.0%", "12.0%", "10.0%", "8.0%", "6.0%", "4.0%", "2.0%"]  # of 500 chunks
    texts = [(label.get_text(), on_page(axes, [label.get_position()])[0]) for label in axes.texts]
    for number, cell in enumerate(cells):
        here = [each for each in texts if (cell[:2] <= each[1]).all() and (each[1] <= cell[2:]).all()]
        (left, at_left), (right, at_right) = sorted(here, key=lambda each: each[1][0])
        assert (left, right) == (expected[number], shares[number])
        assert max(at_left[1], at_right[1]) < middle(cell)[1], "above the middle"


def test_a_first_token_has_one_colour_everywhere(figure: Figure) -> None:
    """Of the move, of the chunks of the episode that it begins, and of its bar."""
    vocabulary = row_of().vocabulary
    assert vocabulary is not None
    colors = [to_hex(color) for color in only(axes_of(figure, "moves"), LineCollection).get_colors()]
    of_token = {move.indices[0]: color for move, color in zip(vocabulary.moves, colors, strict=True)}
    assert len(set(of_token.values())) == len(STEPS)
    bars = axes_of(figure, "use").patches[1:]
    assert [to_hex(bar.get_facecolor()) for bar in bars] == colors
    for label in ("real", "decoded"):
        parts = [line for line in axes_of(figure, label).lines if line.get_marker() == "."]
        expected = [of_token[tokens[0]] for tokens in vocabulary.demonstration.indices]
        assert [to_hex(line.get_color()) for line in parts] == expected


# The demonstration, the histogram


@pytest.mark.parametrize(("label", "chunks"), [("real", EPISODE), ("decoded", DECODED)])
def test_the_episode_is_drawn_where_it_was(figure: Figure, label: str, chunks: Any) -> None:
    """In the arena's px, its y downwards, chunk by chunk, from the same start and in the same window."""
    axes = axes_of(figure, label)
    parts = [line.get_xydata() for line in axes.lines if line.get_marker() == "."]
    np.testing.assert_array_equal(parts, chunks)
    (start,) = (line for line in axes.lines if line.get_marker() == "o")
    assert start.get_xydata().tolist() == [list(EPISODE[0][0])]
    right, down = on_page(axes, [(101, 50), (100, 51)]) - on_page(axes, [(100, 50)])
    assert right[0] > 0 and right[1] == pytest.approx(0)
    assert down[1] == pytest.approx(right[0]) and down[0] == pytest.approx(0)
    every, limits = np.array([*chain(*EPISODE, *DECODED)]), np.sort([axes.get_xlim(), axes.get_ylim()])
    assert (every > limits[:, 0]).all() and (every < limits[:, 1]).all()
    other = axes_of(figure, "decoded" if label == "real" else "real")
    assert (axes.get_xlim(), axes.get_ylim()) == (other.get_xlim(), other.get_ylim())


def test_the_real_path_lies_under_the_decoded_one(figure: Figure) -> None:
    (grey,) = (line for line in axes_of(figure, "decoded").lines if line.get_marker() == "None")
    np.testing.assert_array_equal(grey.get_xydata(), [*chain(*EPISODE)])


def test_the_goal_is_drawn_where_pusht_has_it(figure: Figure) -> None:
    """The corners that the simulator gives for its pose, round the outline."""
    corners = block_keypoints(GOAL_POSE).reshape(8, 2)[[0, 1, 2, 5, 6, 7, 4, 3]]
    for label in ("real", "decoded"):
        (goal,) = axes_of(figure, label).patches
        np.testing.assert_allclose(goal.get_xy()[:-1], corners)


def test_each_bar_stands_at_its_moves_rank_and_is_as_high_as_it_is_used(figure: Figure) -> None:
    axes = axes_of(figure, "use")
    (steps,) = (each for each in axes.patches if isinstance(each, StepPatch))
    assert steps.get_data().values.tolist() == list(COUNTS)
    np.testing.assert_allclose(steps.get_data().edges, np.arange(len(COUNTS) + 1) - 0.5)
    bars: list[Any] = [each for each in axes.patches if each is not steps]
    places = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in bars]
    assert places == list(enumerate(COUNTS[: len(STEPS)]))


def changed(
    counts: tuple[int, ...], n_moves: int, codebook_size: int, num_quantizers: int = 1
) -> TokenizerRow:
    row = row_of(counts=counts, n_moves=n_moves)
    return row.model_copy(update={"codebook_size": codebook_size, "num_quantizers": num_quantizers})


@pytest.mark.parametrize(
    ("row", "in_title", "end", "notes"),
    [
        (row_of(), "11 of 81 moves occur", 81, "grey: not drawn on the left; 70 of 81 never occur"),
        (changed(COUNTS[:9], 9, 512), "9 of 512 codes occur", 512, "503 of 512 never occur"),
        (changed(COUNTS[:9], 9, 9), "9 of 9 codes occur", 9, ""),
        (
            *(changed(COUNTS, 15, 4096), "15 of 4,096 codes occur", 11),
            "grey: not drawn on the left; 4 rarer ones left out; 4,081 of 4,096 never occur",
        ),
        (changed(COUNTS, 11, 256, 10), "11 different moves", 11, "grey: not drawn on the left"),
    ],
    ids=["two codebooks", "mostly unused", "all used", "more than bars", "more than can be learned"],
)
def test_it_says_how_many_codes_never_occur_and_leaves_room_for_them(
    row: TokenizerRow, in_title: str, end: int, notes: str
) -> None:
    figure = drawn_of(row)
    assert figure.get_suptitle() == f"mine, expert demonstrations: {in_title}, 6.3 bits a chunk, 3.0 px lost"
    axes = axes_of(figure, "use")
    assert axes.get_xlim() == (-0.5, end - 0.5)
    assert axes.get_title().split("\n") == ["How often each move is used", *([notes] if notes else [])]
    where = axes.title.get_window_extent()
    assert where.x0 >= 0 and where.x1 <= figure.bbox.x1, "within the page"


# The first stage of a residual VQ


def test_what_first_tokens_decode_to_stands_in_small_cells_below_the_moves() -> None:
    pairs = zip(TOKENS[::-1] * 2, paths(True)[::-1] * 2, strict=True)
    first = tuple(Move(indices=tokens[:1], path=path) for tokens, path in pairs)
    figure = drawn_of(row_of(first=first))
    above, axes = cells_of(axes_of(figure, "moves")), axes_of(figure, "first")
    cells, lines = cells_of(axes), lines_of(axes)
    assert len(cells) == len(lines) == len(first) == 18
    assert max(cell[3] for cell in above) < min(cell[1] for cell in cells), "below the moves"
    first_row, second_row = cells[: pictures.FIRST_COLUMNS], cells[pictures.FIRST_COLUMNS :]
    assert all(cell[1] == pytest.approx(first_row[0][1]) for cell in first_row)
    assert second_row[0][0] == pytest.approx(first_row[0][0]) and second_row[0][1] > first_row[0][3]
    assert cells[0][2] - cells[0][0] == pytest.approx(cells[0][3] - cells[0][1])
    scale = np.ptp(lines[1][:, 1]) / np.ptp([0, *(y for _, y in first[1].path)])
    for cell, line, move in zip(cells, lines, first, strict=True):
        path = np.vstack([[0.0, 0.0], move.path])
        np.testing.assert_allclose(line, middle(cell) + scale * path, atol=0.01)
    assert [label.get_text() for label in axes.texts] == [str(move.indices[0]) for move in first]
    assert f"Cell: {(cells[1][0] - cells[0][0]) / scale:.0f} px" in axes.get_title()
    of_moves = [to_hex(color) for color in only(axes_of(figure, "moves"), LineCollection).get_colors()]
    colors = [to_hex(color) for color in only(axes, LineCollection).get_colors()]
    assert colors == of_moves[::-1] * 2, "a first token has one colour here too"


def test_without_stages_there_is_no_such_row(figure: Figure) -> None:
    assert "first" not in [axes.get_label() for axes in figure.axes]
