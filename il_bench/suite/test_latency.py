"""How long does a robot wait for each selected policy?"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from il_bench.errors import IlBenchError
from il_bench.plugin.fixtures import SETTINGS

if TYPE_CHECKING:
    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.report.schema import Latency
    from il_bench.suite.latency import Subject

Timed = Callable[["LoadedPolicy", "Subject"], None]
Record = Callable[[dict[str, Any]], None]
WHAT = ("new chunk", "queued action", "predict_action_chunk", "control step")
BATCHES = (1, 64)
SAMPLERS = ("DDPM-100", "DDIM-10")
MODES = ("compile", "cuda graph")  # beside eager
ONLY_FULL = "takes long: run it with --il-latency full"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Time the samplers that were asked for beside the usual ones."""
    if "sampler" in metafunc.fixturenames:
        asked_for = metafunc.config.stash[SETTINGS].samplers
        metafunc.parametrize("sampler", dict.fromkeys((*SAMPLERS, *asked_for)))


@pytest.fixture
def timed(request: pytest.FixtureRequest, pytestconfig: pytest.Config, il_bench_record: Record) -> Timed:
    """Time a call with pytest-benchmark, and report the row."""
    _skip_if_nothing_is_timed(pytestconfig)
    settings = pytestconfig.stash[SETTINGS]

    def time(policy: "LoadedPolicy", subject: "Subject") -> None:
        benchmark = request.getfixturevalue("benchmark")  # not before: it warns where nothing is timed
        if benchmark.disabled:
            pytest.skip("pytest-benchmark times nothing here, as with -n: other processes would disturb it")
        from il_bench.latency.calls import NoSuchCallError
        from il_bench.latency.device import device_for
        from il_bench.suite import latency

        benchmark.group = f"latency: {subject.what}, batch {subject.batch}"
        try:
            row = latency.timed(policy, subject, device_for(settings.device), benchmark, settings.latency)
        except NoSuchCallError as absent:
            benchmark.skipped = True
            pytest.skip(str(absent))
        except IlBenchError as error:
            pytest.fail(str(error), pytrace=False)
        benchmark.extra_info.update(row.model_dump())
        _report(row, il_bench_record)

    return time


@pytest.mark.latency
@pytest.mark.parametrize("processed", [True, False], ids=["processed", "bare"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("what", WHAT)
def test_call(policy: "LoadedPolicy", what: str, batch: int, processed: bool, timed: Timed) -> None:
    """The wait for one call, with the checkpoint's pre- and post-processing and without."""
    from il_bench.suite.latency import Subject

    timed(policy, Subject(what, batch, processed))


@pytest.mark.latency
@pytest.mark.parametrize("batch", BATCHES)
def test_sampler(
    policy: "LoadedPolicy", sampler: str, batch: int, timed: Timed, pytestconfig: pytest.Config
) -> None:
    """The wait for a new chunk of a diffusion policy that denoises in another way."""
    from il_bench.latency.variants import sampler_of, with_sampler
    from il_bench.suite.latency import Subject

    own = sampler_of(policy)
    if own is None:
        pytest.skip("only a diffusion policy has a sampler")
    if sampler == own:
        pytest.skip("its own sampler: timed by test_call")
    if batch > 1 and pytestconfig.stash[SETTINGS].latency != "full":
        pytest.skip(ONLY_FULL)
    try:
        other = with_sampler(policy, sampler)
    except IlBenchError as error:
        pytest.fail(str(error), pytrace=False)
    timed(other, Subject("new chunk", batch))


@pytest.mark.latency
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("mode", MODES)
def test_mode(
    policy: "LoadedPolicy", mode: str, batch: int, timed: Timed, pytestconfig: pytest.Config
) -> None:
    """The wait for a new chunk of a policy whose networks are compiled, or recorded as CUDA graphs."""
    settings = pytestconfig.stash[SETTINGS]
    if settings.latency != "full":
        pytest.skip(ONLY_FULL)
    from il_bench.latency.device import device_for
    from il_bench.latency.variants import modes_of
    from il_bench.suite.latency import Subject

    if mode not in modes_of(device_for(settings.device)):
        pytest.skip(f"{settings.device} has no {mode}")
    timed(policy, Subject("new chunk", batch, mode=mode))


@pytest.mark.latency
def test_fresh_process(policy: "LoadedPolicy", pytestconfig: pytest.Config, il_bench_record: Record) -> None:
    """What a process that has just begun pays once: loading, and the first call."""
    from il_bench.latency.device import device_for
    from il_bench.suite.latency import first_calls

    _skip_if_nothing_is_timed(pytestconfig)
    settings = pytestconfig.stash[SETTINGS]
    (choice,) = (each for each in settings.policies if each.gate_name == policy.name)
    if choice.in_process:
        pytest.skip("a call of this project gives it, which another process cannot make")
    try:
        row = first_calls(policy, choice.source, device_for(settings.device))
    except IlBenchError as error:
        pytest.fail(str(error), pytrace=False)
    _report(row, il_bench_record)


def _skip_if_nothing_is_timed(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("benchmark"):
        pytest.skip("timed by pytest-benchmark, which is switched off")


def _report(row: "Latency", record: Record) -> None:
    from il_bench.plugin.collect import Record as Reported

    record(Reported("latency", row).to_dict())
