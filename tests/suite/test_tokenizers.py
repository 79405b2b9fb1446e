"""What the suite says of tokenizers: rows worked out by hand, fair timing, and a whole run."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from il_bench.data import open_dataset
from il_bench.data.chunks import Chunks, FromTheAgent
from il_bench.latency.device import inference_on_one_thread
from il_bench.plugin.collect import Record, Run
from il_bench.policies.checkpoint import load_policy
from il_bench.report import schema
from il_bench.report.rows import Vocabulary
from il_bench.suite import throughput, tokenizer_names
from il_bench.suite import tokenizers as suite_tokenizers
from il_bench.suite.reconstruction import FittedTokenizer, measure, of_policy, use_of_codes
from il_bench.tokenizers import KMeansTokenizer, ResidualVQTokenizer, UniformBinsTokenizer

CHUNK = (2, 2)
AGENT = FromTheAgent()


def seen(*chunks: list[list[float]]) -> Chunks:
    """Chunks in px from an agent at (100, 100), all of episode 4, each where the last one ended."""
    actions = 100.0 + torch.tensor(chunks)
    n, length = actions.shape[:2]
    return Chunks(
        actions, torch.full((n, 2), 100.0), torch.full((n,), 4), torch.arange(0, n * length, step=length)
    )


RIGHT, DOWN = [[64.0, 0.0], [128.0, 0.0]], [[0.0, 128.0], [0.0, 256.0]]
NEARLY_RIGHT = [[64.0, 8.0], [128.0, 0.0]]


@pytest.fixture
def two_moves() -> FittedTokenizer:
    """k-means of two centres: 0 is down, 1 is right."""
    tokenizer = KMeansTokenizer(2, CHUNK)
    tokenizer.fit(AGENT.chunks(seen(RIGHT, DOWN)))
    tokenizer.centers.copy_(AGENT.chunks(seen(DOWN, RIGHT)).flatten(1))
    return FittedTokenizer("two moves", tokenizer, AGENT, "nothing", 0.5)


def vocabulary(subject: FittedTokenizer, chunks: Chunks) -> Vocabulary:
    found = measure(subject, chunks, "mine")[0].vocabulary
    assert found is not None
    return found


def test_a_row_by_hand(two_moves: FittedTokenizer) -> None:
    """Of three chunks, each four numbers, one number is 8 px off."""
    row, mean_px = measure(two_moves, seen(RIGHT, DOWN, NEARLY_RIGHT), "mine")
    assert (row.tokenizer, row.data, row.fitted_on, row.fit_seconds) == ("two moves", "mine", "nothing", 0.5)
    assert (row.codebook_size, row.num_quantizers, row.bits_per_chunk) == (2, 1, 1.0)
    assert (row.n_chunks, row.usage, row.round_trip, row.stage_l1_px) == (3, 1.0, 1.0, None)
    assert math.isclose(row.l1_px, 8 / 12, rel_tol=1e-6)
    assert math.isclose(row.perplexity, 3 / 2 ** (2 / 3), rel_tol=1e-6)  # shares 1/3 and 2/3
    # The mean chunk is two thirds of RIGHT and a third of DOWN, and 8/3 px down in the first step.
    mean = (2 * 64 / 3, (128 + 8) / 3, 2 * 128 / 3, 256 / 3)
    chunks = [[x for step in chunk for x in step] for chunk in (RIGHT, DOWN, NEARLY_RIGHT)]
    off = [abs(x - m) for chunk in chunks for x, m in zip(chunk, mean, strict=True)]
    assert math.isclose(mean_px, sum(off) / 12, rel_tol=1e-5)


def test_moves_are_ordered_by_use_and_drawn_from_the_agent(two_moves: FittedTokenizer) -> None:
    found = vocabulary(two_moves, seen(DOWN, RIGHT, NEARLY_RIGHT))
    assert (found.relative, found.n_moves, found.counts) == (True, 2, (2, 1))
    assert [move.indices for move in found.moves] == [(1,), (0,)]
    assert [list(map(list, move.path)) for move in found.moves] == [RIGHT, DOWN]
    assert found.first == (), "only a residual VQ has first tokens"
    shown = found.demonstration
    assert (shown.episode, shown.indices) == (4, ((0,), (1,), (1,)))
    assert shown.path[4:] == ((164.0, 108.0), (228.0, 100.0))
    assert shown.decoded[4:] == ((164.0, 100.0), (228.0, 100.0))


def test_a_demonstration_is_chunks_that_follow_each_other(two_moves: FittedTokenizer) -> None:
    """Of windows at every frame only each second one, and only of one episode."""
    given = seen(DOWN, RIGHT, DOWN, RIGHT)
    given.frames.copy_(torch.tensor([0, 1, 2, 0]))
    given.episodes.copy_(torch.tensor([4, 4, 4, 9]))
    assert vocabulary(two_moves, given).demonstration.indices == ((0,), (0,))


def test_use_of_codes_by_hand() -> None:
    """Codes 0, 0, 1 and 3 of four: three are used, and shares 1/2, 1/4, 1/4 have entropy 1.5 ln 2."""
    usage, perplexity = use_of_codes(torch.tensor([[0], [0], [1], [3]]), 4)
    assert usage == 0.75
    assert math.isclose(perplexity, 2**1.5, rel_tol=1e-6)
    usage, perplexity = use_of_codes(torch.tensor([[0, 0], [0, 1]]), 2)  # the mean over both codebooks
    assert (usage, perplexity) == (0.75, 1.5)


@pytest.fixture(scope="module")
def residual() -> FittedTokenizer:
    torch.manual_seed(0)
    tokenizer = ResidualVQTokenizer.new(4, CHUNK, embedding_dim=8, hidden_dim=16)
    tokenizer.vqvae.discretized.fill_(True)
    return FittedTokenizer("rvq", tokenizer.eval(), AGENT, "nothing")


def of_first_codes(subject: FittedTokenizer, tokens: Any) -> torch.Tensor:
    """What the first stage alone decodes these tokens to, (N, W, 2) px from the agent on."""
    vqvae: Any = subject.tokenizer.vqvae  # type: ignore[attr-defined]
    decoded: torch.Tensor = vqvae.decoder(vqvae.vq_layer.codebooks[0][tokens]).detach()
    return decoded.view(-1, *CHUNK) * 256


def test_a_residual_vq_has_an_error_after_each_stage(residual: FittedTokenizer) -> None:
    given = seen(RIGHT, DOWN, NEARLY_RIGHT)
    row, _ = measure(residual, given, "mine")
    assert row.stage_l1_px is not None
    first, second = row.stage_l1_px
    assert math.isclose(second, row.l1_px, rel_tol=1e-5)
    decoded = of_first_codes(residual, residual.tokenizer.encode(AGENT.chunks(given))[:, 0]) + 100
    assert math.isclose(first, float((decoded - given.actions).abs().mean()), rel_tol=1e-5)


def test_what_first_tokens_alone_decode_to_is_kept_by_use(residual: FittedTokenizer) -> None:
    given = seen(*[NEARLY_RIGHT] * 3, DOWN, *[[[-x, -y] for x, y in DOWN]] * 2)
    tokens = Counter(residual.tokenizer.encode(AGENT.chunks(given))[:, 0].tolist())
    assert len(tokens) > 1, "else there is no order"
    moves = vocabulary(residual, given).first
    kept = [move.indices[0] for move in moves]
    assert sorted(kept) == sorted(tokens)
    uses = [tokens[token] for token in kept]
    assert uses == sorted(uses, reverse=True)
    paths = torch.tensor([move.path for move in moves])
    torch.testing.assert_close(paths, of_first_codes(residual, kept), atol=0.06, rtol=0.0)


def test_the_suite_can_make_every_tokenizer_it_names() -> None:
    assert tuple(suite_tokenizers.NEW) == tokenizer_names.QUICK + tokenizer_names.TRAINED
    assert set(tokenizer_names.TIMED) <= set(suite_tokenizers.NEW)
    for name, new in suite_tokenizers.NEW.items():
        tokenizer = new()
        assert tokenizer.chunk_shape == suite_tokenizers.CHUNK_SHAPE
        assert not tokenizer.fitted
        sizes = [int(number) for number in re.findall(r"\d+", name)]
        expected = {"FSQ": math.prod(sizes), "residual": sizes[0]}.get(name.split()[0], sizes[-1])
        assert tokenizer.codebook_size == expected, name


# ---- timing


def test_work_is_compared_by_items_a_second() -> None:
    """By this clock a call takes as long as its name says."""
    now, calls = 0.0, []

    def lasting(name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            nonlocal now
            now += seconds
            calls.append(name)

        return call

    class Benchmark:
        stats = SimpleNamespace(stats=SimpleNamespace(median=4.0))

        def _timer(self) -> float:
            return now

        def pedantic(self, target: Callable[[], None], *, setup: Callable[[], None], rounds: int) -> None:
            for _ in range(rounds):
                setup()
                target()

    theirs = throughput.Counterpart("theirs", lasting("theirs", 1.0), 2)
    floor = throughput.Counterpart("floor", lasting("floor", 2.0), 10)
    work = throughput.Work(lasting("ours", 4.0), 10, theirs, floor)
    options: Any = {"seconds": 1.0, "device": "cpu", "benchmark": Benchmark()}
    row = throughput.throughput("work", work, 1024, **options)
    assert (row.per_second, row.ratio_to_reference, row.ratio_to_floor) == (2.5, 1.25, 0.5)
    assert (row.reference, row.floor, row.device) == ("theirs", "floor", "cpu")
    assert Counter(calls) == {"ours": 8, "theirs": 7, "floor": 7}
    alone = throughput.throughput("work", throughput.Work(work.call, 1), 1, **options)
    assert (alone.ratio_to_reference, alone.floor) == (None, None)


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_a_residual_vq_is_compared_with_lerobot_on_the_same_weights(
    residual: FittedTokenizer, way: str
) -> None:
    work = throughput.tokenizing(residual, seen(RIGHT, DOWN, NEARLY_RIGHT), way, 7, "cpu")
    assert work.reference is not None and work.floor is not None
    with inference_on_one_thread():
        ours, theirs, products = work.call(), work.reference.call(), work.floor.call()
    assert isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor)
    torch.testing.assert_close(ours, theirs)
    assert isinstance(products, torch.Tensor)
    assert products.shape == {"encode": (7, 8), "decode": (7, 4)}[way]


def test_what_has_no_network_has_no_floor() -> None:
    tokenizer = UniformBinsTokenizer(4, CHUNK)
    tokenizer.fit(torch.randn(9, *CHUNK))
    subject = FittedTokenizer("bins", tokenizer, AGENT, "nothing")
    work = throughput.tokenizing(subject, seen(RIGHT), "encode", 3, "cpu")
    assert (work.reference, work.floor, work.n) == (None, None, 3)


def test_windows_are_those_of_lerobots_dataset() -> None:
    work = throughput.windowing(load_policy("vqbet"), open_dataset("expert"), 3)
    assert work.reference is not None and work.reference.n == 3
    ours, theirs = work.call(), work.reference.call()
    assert isinstance(ours, dict) and isinstance(theirs, dict)
    for key in ("action", "observation.state", "action_is_pad"):
        torch.testing.assert_close(ours[key], theirs[key])
    assert work.floor is not None and work.floor.name == "indexing as many rows"
    copies = work.floor.call()
    assert isinstance(copies, list)
    held = [each for each in ours.values() if isinstance(each, torch.Tensor)]
    assert [each.shape for each in copies] == [each.shape for each in held], "every row of every tensor"


@pytest.mark.parametrize(("way", "n_tensors"), [("normalise", 3), ("unnormalise", 1)])
def test_normalising_is_compared_with_one_pass_over_the_same_numbers(way: str, n_tensors: int) -> None:
    work = throughput.normalising(load_policy("vqbet"), open_dataset("expert"), way, 3, "cpu")
    assert work.floor is not None and work.floor.name == "one multiplication of the same numbers"
    changed, passed = work.call(), work.floor.call()
    given = list(changed.values()) if isinstance(changed, dict) else [changed]
    shapes = {each.shape for each in given if isinstance(each, torch.Tensor) and each.is_floating_point()}
    floor = passed if isinstance(passed, list) else [passed]
    assert len(floor) == n_tensors and {each.shape for each in floor} <= shapes


# ---- as a user runs it

Suite = Callable[..., pytest.RunResult]
TOKENIZERS = ("--pyargs", "il_bench.suite.test_tokenizers")
ANY_DEVICE = """
from il_bench.plugin.settings import OPTIONS

OPTIONS["device"] = OPTIONS["device"]._replace(check=lambda device, _: device)
"""


@pytest.mark.slow
def test_windows_run_on_the_cpu_whatever_the_device_is(
    suite: Suite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cpu:0` for want of another one that torch tells from `cpu`."""
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=os.pathsep)
    pytester.makepyfile(anydevice=ANY_DEVICE)
    result = suite(
        *("-p", "anydevice", "-p", "benchmark", "--il-device", "cpu:0", "--il-thorough"),
        *("-k", "windows and not 1024 and not 16384", "--pyargs", "il_bench.suite.test_throughput"),
    )
    assert result.ret == 0
    rows = schema.load(pytester.path / "il-bench-report" / "report.json").throughput
    assert [(row.batch, row.device) for row in rows] == [(batch, "cpu") for batch in (1, 64)]
    assert all(row.peak_memory_mb and row.ratio_to_floor and row.floor for row in rows)


@pytest.mark.slow
def test_a_run_reports_tokenizers_and_draws_them(suite: Suite, pytester: pytest.Pytester) -> None:
    result = suite(*TOKENIZERS, "-k", "bins or 64 or (test_tokenizer and bet and not vqbet)")
    assert result.ret == 0
    folder = pytester.path / "il-bench-report"
    rows = {row.tokenizer: row for row in schema.load(folder / "report.json").tokenizers}
    assert set(rows) == {"bet: KMeans", "uniform bins 256", "k-means 64"}
    assert {(row.data, row.n_chunks) for row in rows.values()} == {("expert", 3281)}
    assert rows["uniform bins 256"].l1_px < 1.0 < rows["k-means 64"].l1_px < 10.0
    assert rows["bet: KMeans"].fitted_on == "bet's own data: expert, which includes these episodes"
    assert rows["k-means 64"].fitted_on == "160 other episodes"
    assert "k-means 64, expert demonstrations" in (folder / "report.html").read_text()


def test_what_takes_long_is_fitted_on_your_demonstrations_only(
    suite: Suite, pytester: pytest.Pytester
) -> None:
    def collected(*effort: str) -> set[str]:
        lines = suite(*TOKENIZERS, "--collect-only", "-q", "--il-policy", "bet", *effort).outlines
        return {line.partition("::")[2] for line in lines if "::" in line}

    quick, trained = (
        {f"test_fitted[{name}-expert]" for name in names}
        for names in (tokenizer_names.QUICK, tokenizer_names.TRAINED)
    )
    assert collected() == quick | {"test_tokenizer[expert-bet]"}
    assert collected("--il-thorough") == quick | trained | {"test_tokenizer[expert-bet]"}
    pytester.makeini("[pytest]\nil_bench_data = somewhere/mine")
    expected = quick | {name.replace("expert", "mine") for name in quick | trained}
    assert collected("--il-thorough") == expected | {"test_tokenizer[expert-bet]", "test_tokenizer[mine-bet]"}


def test_rows_of_two_data_sets_stand_side_by_side(two_moves: FittedTokenizer) -> None:
    given = seen(RIGHT, DOWN)
    records = [Record("tokenizers", measure(two_moves, given, data)[0]).to_dict() for data in ("one", "two")]
    report = Run(json.loads(json.dumps(records))).report()
    assert [row.data for row in report.tokenizers] == ["one", "two"]


@pytest.mark.parametrize(
    ("checkpoint", "trained_on", "measured_on", "among"),
    [
        ("zoo/bet", "expert", "expert", True),
        ("zoo/vqbet", "dagger", "expert", True),
        ("zoo/vqbet", "dagger", "human", False),
        ("runs/mine", "dagger", "expert", False),  # somebody's own
        ("runs/mine", "human", "human", True),
        ("runs/mine", "demos", "demos", None),  # of the same name
        ("runs/mine", "unknown", "expert", False),
    ],
)
def test_a_row_says_whether_its_tokenizer_has_seen_these_episodes(
    two_moves: FittedTokenizer, checkpoint: str, trained_on: str, measured_on: str, among: bool | None
) -> None:
    policy = replace(load_policy("bet"), name="mine", checkpoint=checkpoint, data=trained_on)
    assert of_policy(policy, policy.policy.tokenizer, policy.name).name == "mine: KMeans"
    subject = replace(of_policy(policy, two_moves.tokenizer, policy.name), coordinates=two_moves.coordinates)
    row, _ = measure(subject, seen(RIGHT, DOWN), measured_on)
    assert row.fit_seconds is None
    expected = f"mine's own data: {trained_on}"
    perhaps = ", which has the name of these demonstrations and may include these episodes"
    said = {True: ", which includes these episodes", False: "", None: perhaps}[among]
    assert row.fitted_on == expected + said
