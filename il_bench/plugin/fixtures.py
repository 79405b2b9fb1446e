"""The fixtures. They import what is heavy when they are first used, not before."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from il_bench.errors import IlBenchError
from il_bench.plugin.choices import PolicyChoice
from il_bench.plugin.registry import Registry, load
from il_bench.plugin.settings import Settings
from il_bench.protocol import HUMAN_DATA, MARGIN

if TYPE_CHECKING:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from il_bench.gate import GateResult
    from il_bench.plugin.evaluation import Evaluate
    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.policies.expert import ExpertPolicy
    from il_bench.pusht.env import PushTEnv
    from il_bench.rollout import Outcomes
    from il_bench.rollout.progress import ShowProgress
    from il_bench.tokenizers import Tokenizer

SETTINGS = pytest.StashKey[Settings]()
REGISTRY = pytest.StashKey[Registry]()
#: What a test has recorded for the report, in the stash of its item.
RECORDS = pytest.StashKey[list[dict[str, Any]]]()
#: By the id of a loaded policy: the policy, and what loading it has changed in the process.
CHANGED = pytest.StashKey[dict[int, tuple[Any, dict[str, Any]]]]()
#: Processor seconds of this process and its workers until the last report.
PROCESSOR = pytest.StashKey[float]()
#: The test that is running, and how often it has asked the fixture `gate`.
RUNNING, GATED = pytest.StashKey[pytest.Item](), pytest.StashKey[int]()
DATA_INI = "il_bench_data"
ANY_ENVIRONMENT = "il_bench_any_environment"


# The suite uses the fixtures whose names begin with il_bench_, whatever a project calls its own.


def _evaluate(pytestconfig: pytest.Config) -> "Evaluate":
    """Roll a policy out in PushT: `evaluate(policy, *, n=None, seeds=None) -> Outcomes`.

    policy: a shipped policy's name, a pretrained_model folder, a Hub id, or an object with reset() and
    select_action(batch). It runs on the first n of --il-seeds (default: --il-episodes or 200), or on `seeds`.
    """
    from il_bench.plugin.evaluation import Evaluate

    return Evaluate(pytestconfig.stash[SETTINGS], progress_of(pytestconfig))


evaluate = pytest.fixture(scope="session", name="evaluate")(_evaluate)
il_bench_evaluate = pytest.fixture(scope="session", name="il_bench_evaluate")(_evaluate)


@pytest.fixture(scope="session")
def gate(pytestconfig: pytest.Config) -> "Callable[..., GateResult]":
    """Test a success rate: `gate(outcomes, *, target=None, margin=0.05) -> GateResult`.

    `.passed` only if the episodes show, with 95 % confidence, a success rate above target - margin. Without a
    target the decision is NOT GATED.
    """
    from il_bench.gate import check_target
    from il_bench.report.success import properties_of

    def decide(outcomes: "Outcomes", *, target: float | None = None, margin: float = MARGIN) -> "GateResult":
        episodes = outcomes.sorted()
        result = check_target(episodes.success, target=target, margin=margin)
        if (item := pytestconfig.stash.get(RUNNING, None)) is not None:
            n = item.stash[GATED] = item.stash.get(GATED, 0) + 1
            item.user_properties.extend(properties_of(result, target, episodes, number=n))
        return result

    return decide


def _policy(request: pytest.FixtureRequest) -> "LoadedPolicy":
    """Each policy selected with --il-policy, loaded, in turn; by default all of il_bench's and the project's.

    Policies for environments other than PushT are left out.
    """
    choice, config = request.param, request.config
    chosen = choice if isinstance(choice, PolicyChoice) else PolicyChoice(str(choice), str(choice))
    import il_bench.policies.checkpoint  # noqa: F401  (what its imports change is not the policy's doing)
    from il_bench.rollout.surroundings import undisturbed

    with in_one_line(), undisturbed(f"policy {chosen.gate_name}, while it was loaded,") as changed:
        loaded = load(chosen, config.stash[REGISTRY], config.stash[SETTINGS].device)
    if changed:
        config.stash.setdefault(CHANGED, {})[id(loaded)] = loaded, changed
    return loaded


policy = pytest.fixture(scope="session", name="policy")(_policy)
il_bench_policy = pytest.fixture(scope="session", name="il_bench_policy")(_policy)
POLICIES = ("policy", "il_bench_policy")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note which test is running: fixtures of the whole session have no other way to know."""
    item.config.stash[RUNNING] = item
    try:
        return (yield)
    finally:
        del item.config.stash[RUNNING]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let what loading a policy has changed in the process hold while a test uses that policy."""
    changes = item.config.stash.get(CHANGED, {})
    own = [changes[id(each)][1] for each in getattr(item, "funcargs", {}).values() if id(each) in changes]
    if not own:
        return (yield)
    from il_bench.rollout.surroundings import holding

    with holding(own[0]):
        return (yield)


@pytest.fixture(scope="session")
def expert() -> "ExpertPolicy":
    """The planner that solves PushT, as a policy for `evaluate`. It is the ceiling of every table."""
    from il_bench.policies.expert import ExpertPolicy

    return ExpertPolicy()


@pytest.fixture(scope="session")
def tokenizer(policy: "LoadedPolicy") -> "Tokenizer":
    """The action tokenizer inside each selected policy, LeRobot's vqbet included; skips policies without."""
    return _tokenizer(policy)


@pytest.fixture(scope="session")
def il_bench_tokenizer(il_bench_policy: "LoadedPolicy") -> "Tokenizer":
    """The same, for the suite."""
    return _tokenizer(il_bench_policy)


def _tokenizer(policy: "LoadedPolicy") -> "Tokenizer":
    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.policies.tokenizers import tokenizer_of

    with in_one_line():
        if not isinstance(policy, LoadedPolicy):
            raise IlBenchError(
                f"fixture 'tokenizer': the fixture 'policy' of this project gives a {type(policy).__name__}, "
                "not a policy of il_bench; rename that fixture"
            )
        found = tokenizer_of(policy.policy, policy.name)
    if found is None:
        pytest.skip(f"{policy.name} has no action tokenizer")
    return found


@pytest.fixture
def pusht_env(pytestconfig: pytest.Config) -> "Iterator[PushTEnv]":
    """A PushT environment with the observations of --il-track, closed after the test."""
    from il_bench.pusht.env import PushTEnv

    pixels = pytestconfig.stash[SETTINGS].track == "pixels"
    env = PushTEnv(obs_type="pixels_agent_pos" if pixels else "environment_state_agent_pos")
    yield env
    env.close()


@pytest.fixture(scope="session")
def pusht_dataset(pytestconfig: pytest.Config) -> "LeRobotDataset":
    """The demonstrations that the ini option il_bench_data or IL_BENCH_HUMAN_DATA names, as a LeRobotDataset.

    Either names a Hub id, a LeRobot folder or a replay buffer. Without both these are the expert's 200
    episodes that come with il_bench.
    """
    source = pytestconfig.getini(DATA_INI) or os.environ.get(HUMAN_DATA) or "expert"
    from il_bench.data import open_dataset

    local = pytestconfig.rootpath / source
    return open_dataset(local if local.exists() else source)


@pytest.fixture
def il_bench_record(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], None]:
    """Hand a row to the report, as `il_bench.plugin.collect.Record.to_dict` gives it."""
    records: list[dict[str, Any]] = request.node.stash.setdefault(RECORDS, [])

    def note(record: dict[str, Any]) -> None:
        from il_bench.plugin.collect import Record
        from il_bench.report.schema import Success
        from il_bench.report.success import properties

        records.append(record)
        try:
            row = Record.from_dict(record).row
        except IlBenchError:
            return  # the end of the run says what is wrong with it
        if isinstance(row, Success):  # for --junit-xml, and plugins that write test reports
            request.node.user_properties.extend(properties(row))

    return note


@pytest.fixture
def il_bench_whole_table(pytestconfig: pytest.Config) -> None:
    """Skip a row that is not about a policy if --il-policy asks for some."""
    if pytestconfig.stash[SETTINGS].chosen:
        pytest.skip("part of the whole table; --il-policy asks for some rows only")


@contextmanager
def in_one_line() -> Iterator[None]:
    """Fail the test with the sentence of an IlBenchError, without a traceback through il_bench."""
    try:
        yield
    except IlBenchError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def any_environment[F: Callable[..., object]](test: F) -> F:
    """Mark a test that also takes a `policy` for a project's own environment."""
    setattr(test, ANY_ENVIRONMENT, True)
    return test


def is_ours(definitions: Sequence[Any]) -> bool:
    """Whether the last of all `definitions` of a fixture, which pytest uses, is in this module."""
    return bool(definitions) and definitions[-1].func.__module__ == __name__


def uses_ours(item: pytest.Item) -> bool:
    """Whether a test uses a fixture of this module."""
    info = getattr(item, "_fixtureinfo", None)
    return info is not None and any(map(is_ours, info.name2fixturedefs.values()))


def progress_of(config: pytest.Config) -> "ShowProgress":
    """How this run shows the progress of a rollout; a worker of pytest-xdist shows nothing."""
    from il_bench.rollout import progress

    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.get_verbosity() < 0:
        return progress.silent
    capture = config.pluginmanager.get_plugin("capturemanager")
    uncaptured = capture.global_and_fixture_disabled if capture is not None else nullcontext
    terminal = config.get_terminal_writer()._file
    with uncaptured():  # while a test runs, a file stands in for the terminal
        is_terminal = terminal.isatty()
    if is_terminal:
        return partial(progress.bar, terminal=terminal, uncaptured=uncaptured)

    def write_line(text: str) -> None:
        reporter.ensure_newline()
        reporter.write_line(text)

    return partial(progress.log, write_line=write_line, uncaptured=uncaptured)


def processor_seconds_since_last(config: pytest.Config) -> float:
    """Processor seconds of this process and its workers since the last call, or the beginning."""
    from il_bench.rollout import executors

    now = time.process_time() + executors.BY_WORKERS.seconds
    before = config.stash.get(PROCESSOR, 0.0)
    config.stash[PROCESSOR] = now
    return now - before
