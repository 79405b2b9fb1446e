"""How many actions a second does each selected policy give? How many chunks a second pass a tokenizer?"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from il_bench.plugin.fixtures import SETTINGS
from il_bench.protocol import EXPERT
from il_bench.suite import stages, tokenizer_names

if TYPE_CHECKING:
    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.suite.throughput import Work
    from il_bench.tokenizers import Tokenizer

Time = Callable[[str, "Work", int, float], None]
BLOCK = 50  # the batch of a rollout
BATCHES = [*stages.long(1, 64), 1024, *stages.long(16384)]
SECONDS = 3.0  # at most
FEW_SECONDS = 0.3  # for the many rows of small calls


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Time the project's tokenizers beside il_bench's; what takes long only in a thorough run."""
    config, is_thorough = metafunc.config, stages.is_thorough(metafunc.config)
    if "name" in metafunc.fixturenames:
        timed = (name for name in tokenizer_names.TIMED if is_thorough or name in tokenizer_names.QUICK)
        metafunc.parametrize("name", (*timed, *tokenizer_names.of_project(config)))


@pytest.fixture
def time(
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    il_bench_record: Callable[[dict[str, Any]], None],
) -> Time:
    """Time some work with pytest-benchmark, in turns with its reference and floor, and report the row."""
    if not pytestconfig.pluginmanager.hasplugin("benchmark"):
        pytest.skip("timed by pytest-benchmark, which is switched off")
    benchmark = request.getfixturevalue("benchmark")
    if benchmark.disabled:
        pytest.skip("pytest-benchmark times nothing with --benchmark-disable")
    device = pytestconfig.stash[SETTINGS].device

    def time(what: str, work: "Work", batch: int, seconds: float) -> None:
        from il_bench.plugin.collect import Record
        from il_bench.suite.throughput import throughput

        share = stages.seconds(request, "throughput", seconds)
        row = throughput(what, work, batch, seconds=share, device=device, benchmark=benchmark)
        benchmark.extra_info.update(row.model_dump())
        il_bench_record(Record("throughput", row).to_dict())

    return time


@pytest.mark.throughput
@pytest.mark.parametrize("batch", [1, BLOCK])
def test_actions(il_bench_policy: "LoadedPolicy", batch: int, time: Time) -> None:
    """Time actions, including their share of the prediction."""
    from il_bench.suite.throughput import acting

    time(f"{il_bench_policy.name}: select_action", acting(il_bench_policy, batch), batch, SECONDS)


@pytest.mark.throughput
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_chunks(
    il_bench_policy: "LoadedPolicy",
    il_bench_tokenizer: "Tokenizer",
    way: str,
    batch: int,
    time: Time,
    pytestconfig: pytest.Config,
) -> None:
    """Time the tokenizer inside a policy."""
    from il_bench.suite.reconstruction import of_policy
    from il_bench.suite.throughput import tokenizing
    from il_bench.suite.tokenizers import held_out

    subject = of_policy(il_bench_policy, il_bench_tokenizer, il_bench_policy.name)
    seen = held_out(EXPERT, il_bench_tokenizer.chunk_shape[0])
    work = tokenizing(subject, seen, way, batch, pytestconfig.stash[SETTINGS].device)
    time(f"{il_bench_policy.name}: {way}", work, batch, FEW_SECONDS)


@pytest.mark.throughput
@pytest.mark.usefixtures("il_bench_whole_table")
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_fitted_chunks(name: str, way: str, batch: int, time: Time, pytestconfig: pytest.Config) -> None:
    """Time the tokenizers that test_tokenizers.py fits."""
    from il_bench.suite.throughput import tokenizing
    from il_bench.suite.tokenizers import fitted, held_out

    _, source = tokenizer_names.preferred(pytestconfig)
    subject = fitted(name, source, tokenizer_names.factory(pytestconfig, name))
    seen = held_out(source, subject.tokenizer.chunk_shape[0])
    work = tokenizing(subject, seen, way, batch, pytestconfig.stash[SETTINGS].device)
    time(f"{name}: {way}", work, batch, FEW_SECONDS)


@pytest.mark.throughput
@pytest.mark.usefixtures("il_bench_whole_table")
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("what", ["windows", "normalise", "unnormalise"])
def test_batches(what: str, batch: int, time: Time, pytestconfig: pytest.Config) -> None:
    """Time the embedded vqbet's training windows: gathered, normalised, and actions back in px."""
    from il_bench.policies.checkpoint import load_policy
    from il_bench.suite.throughput import normalising, windowing
    from il_bench.suite.tokenizers import demonstrations

    device = pytestconfig.stash[SETTINGS].device
    dataset = demonstrations(EXPERT)
    if what == "windows":
        work = windowing(load_policy("vqbet"), dataset, batch)
    else:
        work = normalising(load_policy("vqbet", device=device), dataset, what, batch, device)
    time(what, work, batch, FEW_SECONDS)
