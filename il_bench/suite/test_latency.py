"""How long does a robot wait for each selected policy?"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from il_bench.plugin.fixtures import SETTINGS, in_one_line
from il_bench.protocol import Mode, TimedCall
from il_bench.suite import stages

if TYPE_CHECKING:
    from il_bench.latency.processes import Worker
    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.report.rows import Latency

TimeCall = Callable[..., None]  # takes a policy, and the fields of a `suite.latency.CallSpec`
Report = Callable[["Latency"], None]
BATCHES = (1, 64)
SAMPLERS = ("DDPM-100", "DDIM-10")
ONLY_FULL = "takes long: run it with --il-latency full or --il-thorough"
WITH, WITHOUT = "processed", "bare"
#: What, batch and processing of each call; every run times one robot's, and new chunks for many.
CALLS = [
    stages.either(
        *(what, batch, processing == WITH),
        is_long=processing == WITHOUT or (batch > 1 and what != TimedCall.NEW_CHUNK),
        id=f"{what}-{batch}-{processing}",
    )
    for processing, batch, what in product((WITH, WITHOUT), BATCHES, TimedCall)
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Time the usual samplers, and those of --il-sampler; every combination only in a thorough run."""
    is_thorough = stages.is_thorough(metafunc.config)
    if "sampler" in metafunc.fixturenames:
        usual, asked_for = SAMPLERS if is_thorough else SAMPLERS[1:], metafunc.config.stash[SETTINGS].samplers
        metafunc.parametrize("sampler", dict.fromkeys((*usual, *asked_for)))


@pytest.fixture
def report(pytestconfig: pytest.Config, il_bench_record: Callable[[dict[str, Any]], None]) -> Report:
    """Put a row into the report; skip the test if pytest-benchmark is switched off."""
    if not pytestconfig.pluginmanager.hasplugin("benchmark"):
        pytest.skip("timed by pytest-benchmark, which is switched off")

    def record(row: "Latency") -> None:
        from il_bench.plugin.collect import Record

        il_bench_record(Record("latency", row).to_dict())

    return record


@pytest.fixture
def time_call(request: pytest.FixtureRequest, pytestconfig: pytest.Config, report: Report) -> TimeCall:
    """Time a call with pytest-benchmark, and report the row."""
    settings = pytestconfig.stash[SETTINGS]

    def time(policy: "LoadedPolicy", **fields: Any) -> None:
        benchmark = request.getfixturevalue("benchmark")  # not earlier: it warns if it times nothing
        if benchmark.disabled:
            pytest.skip("pytest-benchmark times nothing here, for example because of -n")
        from il_bench.latency.calls import NoSuchCallError
        from il_bench.latency.device import device_for
        from il_bench.suite import latency

        spec, device = latency.CallSpec(**fields), device_for(settings.device)
        benchmark.group = f"latency: {spec.what}, batch {spec.batch}"
        with in_one_line():
            try:
                short = stages.seconds(request, "latency", latency.SHORT)
                seconds = latency.FULL if settings.latency == "full" else (short, min(short, latency.FEW))
                row = latency.time_call(policy, spec, device, benchmark, seconds)
            except NoSuchCallError as absent:
                benchmark.skipped = True
                pytest.skip(str(absent))
        benchmark.extra_info.update(row.model_dump())
        report(row)

    return time


@pytest.mark.latency
@pytest.mark.parametrize(("what", "batch", "processed"), CALLS)
def test_call(
    il_bench_policy: "LoadedPolicy", what: str, batch: int, processed: bool, time_call: TimeCall
) -> None:
    """Time each call, with the checkpoint's pre- and post-processing and without."""
    time_call(il_bench_policy, what=what, batch=batch, processed=processed)


@pytest.mark.latency
@pytest.mark.parametrize("batch", BATCHES)
def test_sampler(
    il_bench_policy: "LoadedPolicy",
    sampler: str,
    batch: int,
    time_call: TimeCall,
    pytestconfig: pytest.Config,
) -> None:
    """Time a new chunk of a diffusion policy with another sampler."""
    from il_bench.latency.inference import noise_levels, sampler_of, with_sampler

    own, settings = sampler_of(il_bench_policy), pytestconfig.stash[SETTINGS]
    if own is None:
        pytest.skip("only a diffusion policy has a sampler")
    if sampler == own:
        pytest.skip("test_call times its own sampler")
    if sampler not in settings.samplers and int(sampler[5:]) > (levels := noise_levels(il_bench_policy)):
        pytest.skip(f"{il_bench_policy.name} was trained on {levels} noise levels")
    if batch > 1 and settings.latency != "full":
        pytest.skip(ONLY_FULL)
    with in_one_line():
        other = with_sampler(il_bench_policy, sampler)
    time_call(other, what=TimedCall.NEW_CHUNK, batch=batch)


@pytest.mark.latency
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("mode", [mode for mode in Mode if mode != Mode.EAGER])
def test_mode(
    il_bench_policy: "LoadedPolicy", mode: str, batch: int, time_call: TimeCall, pytestconfig: pytest.Config
) -> None:
    """Time a new chunk of a policy whose networks are compiled, or recorded as CUDA graphs."""
    settings = pytestconfig.stash[SETTINGS]
    if settings.latency != "full":
        pytest.skip(ONLY_FULL)
    from il_bench.latency.device import device_for

    if mode == Mode.CUDA_GRAPH and not device_for(settings.device).has_graphs:
        pytest.skip(f"{settings.device} has no {mode}")
    time_call(il_bench_policy, what=TimedCall.NEW_CHUNK, batch=batch, mode=mode)


@pytest.fixture(scope="module")
def worker() -> "Iterator[Worker]":
    """A process that has computed nothing."""
    from il_bench.latency.processes import Worker

    with Worker() as started:
        started.greeting()
        yield started


@pytest.mark.latency
def test_fresh_process(
    il_bench_policy: "LoadedPolicy",
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    report: Report,
) -> None:
    """Time what a new process does once: loading the policy, and the first call."""
    from il_bench.latency.device import device_for
    from il_bench.suite.latency import first_calls, source_of

    settings = pytestconfig.stash[SETTINGS]
    if not settings.thorough:
        pytest.skip(stages.ONLY_THOROUGH)
    source = source_of(il_bench_policy, settings)
    with in_one_line():
        worker = request.getfixturevalue("worker")  # not earlier: it imports LeRobot
        row = first_calls(il_bench_policy, source, device_for(settings.device), worker)
    report(row)
