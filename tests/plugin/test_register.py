"""What a project adds by `pytest_il_bench_register`, as the package in tests/example_project does it."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.plugin import collect
from il_bench.plugin.evaluation import Evaluate
from il_bench.plugin.registry import RegisteredEnvironment, Registry, load
from il_bench.rollout import blocks
from il_bench.rollout.environments import EnvironmentRollout
from il_bench.suite.success import Measure
from tests.conftest import Run
from tests.plugin.test_settings import given
from tests.rollout.test_environments import Still

EXAMPLE = Path(__file__).parents[1] / "example_project"
FIRST = 200_000


@pytest.fixture
def run(light: Run, short: None, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the suite with our plugin and the example's, as if installed; PushT ends after 3 steps."""
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLE), prepend=os.pathsep)
    return lambda *arguments: light("-p", "reach.plugin", "-p", "no:cacheprovider", *arguments)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """What the example registers."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from reach.plugin import pytest_il_bench_register

    registry = Registry()
    pytest_il_bench_register(registry)
    registry.check()
    yield registry
    for name in [name for name in sys.modules if name.partition(".")[0] == "reach"]:
        del sys.modules[name]


def rows(pytester: pytest.Pytester, section: str) -> list[dict[str, Any]]:
    report = json.loads((pytester.path / "il-bench-report" / "report.json").read_text())
    return report[section]


# ---- the suite


def test_what_a_project_adds_is_collected_beside_il_benchs_own(pytester: pytest.Pytester, run: Run) -> None:
    result = run("--benchmark", "--pyargs", "il_bench.suite", "--collect-only", "-q")
    found = {line.rpartition("::")[2] for line in result.outlines if "::" in line}
    assert {f"test_success[{name}]" for name in ("act", "vqbet", "pusher", "reacher")} <= found
    assert {"test_actions[pusher-1]", "test_fitted[grid 16-expert]"} <= found
    assert not [name for name in found if "reacher" in name and not name.startswith("test_success")]


@pytest.mark.slow
def test_a_projects_policies_and_tokenizers_are_rows_of_the_report(
    pytester: pytest.Pytester, run: Run
) -> None:
    result = run(
        *("--benchmark", "--pyargs", "il_bench.suite", "-m", "success", "-k", "pusher or reacher or grid"),
        *("--il-episodes", "6", "--il-target", "success_rate=0.5", "--il-workers", "1"),
    )
    success = {(row["policy"], row["track"]): row for row in rows(pytester, "success")}
    assert set(success) == {("pusher", "keypoints"), ("reacher", "reach")}
    reacher, pusher = success["reacher", "reach"], success["pusher", "keypoints"]
    solved = [episode["success"] for episode in reacher["episodes"]]
    assert solved == [(FIRST + i) % 3 != 0 for i in range(6)], "the far goals are not reached"
    assert [episode["n_steps"] for episode in reacher["episodes"]] == [9 if one else 20 for one in solved]
    assert reacher["mean_max_reward"]["estimate"] == reacher["success_rate"]["estimate"] == 4 / 6
    assert reacher["target"]["decision"] == "INCONCLUSIVE" and reacher["parameters"] == 1
    assert reacher["checkpoint"] == "reach.plugin.reacher" and reacher["data"] == "none"
    assert len(reacher["sha256"]) == 64 and pusher["sha256"] is None
    assert pusher["success_rate"]["estimate"] == 0 and pusher["n_episodes"] == 6
    (row,) = rows(pytester, "tokenizers")
    assert (row["tokenizer"], row["codebook_size"], row["num_quantizers"]) == ("grid 16", 16, 8)
    assert 0 < row["l1_px"] < 8 and row["round_trip"] == 1
    result.stdout.fnmatch_lines(["reacher (reach)*", "pusher *"])


@pytest.mark.slow
def test_a_projects_environment_has_gates_and_a_journal(pytester: pytest.Pytester, run: Run) -> None:
    """A baseline of its own, UNCHANGED when run again, also gone on with, and a FAIL when it got slower."""
    suite = ("--benchmark", "--pyargs", "il_bench.suite", "-m", "success", "--il-policy", "reacher")
    suite += ("--il-baselines", "mine.json", "--il-episodes", "50", "--il-workers", "2")
    assert run(*suite, "--il-update-baselines").ret == 0
    kept = json.loads((pytester.path / "mine.json").read_text())["gates"]["reacher"]["reach"]["baseline"]
    assert kept["fingerprint"]["task"] == "reach" and kept["fingerprint"]["max_steps"] == 20
    assert kept["fingerprint"]["simulator"] == "reach.environment.Reach"
    assert kept["episodes"] == {str(FIRST): "".join(".F"[(FIRST + i) % 3 == 0] for i in range(50))}
    assert run(*suite).ret == 0
    assert rows(pytester, "success")[0]["baseline"]["decision"] == "UNCHANGED"
    resumed = run(*suite, "--il-resume", "--il-policy", "pusher")
    assert resumed.ret == 0
    resumed.stdout.fnmatch_lines(
        ["--il-resume: rolled out again, since code has no hash: pusher; give a version*"]
    )
    pytester.makepyfile(
        slow="from reach import policies\n\npolicies.Reacher.__init__.__defaults__ = (0.02,)\n"
    )
    result = run("-p", "slow", *suite)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*reacher: worse than its measured baseline: FAIL*"])


@pytest.mark.slow
def test_a_projects_policies_and_tokenizers_are_timed(pytester: pytest.Pytester, run: Run) -> None:
    result = run(
        *("-p", "benchmark", "--benchmark", "--pyargs", "il_bench.suite", "-m", "throughput or latency"),
        *("-k", "(pusher or reacher or grid) and not 16384", "-rs", "--il-keep-blocks"),
    )
    assert result.ret == 0
    timed = {row["what"] for row in rows(pytester, "throughput")}
    assert timed == {"pusher: select_action", "grid 16: encode", "grid 16: decode"}
    assert {row["policy"] for row in rows(pytester, "latency")} == {"pusher"}
    result.stdout.fnmatch_lines(["SKIPPED*another process cannot call*"])


@pytest.mark.slow
def test_a_projects_policy_is_the_policy_of_its_own_tests(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import pytest

        def test_selected(policy):
            assert policy.name == "pusher" and policy.track == "keypoints"

        @pytest.mark.parametrize("policy", ["reacher"], indirect=True)
        def test_named(policy):
            assert policy.track == "reach" and policy.parameters == 1
        """
    )
    run("--il-policy", "pusher", "--il-policy", "reacher").assert_outcomes(passed=2)


def test_what_cannot_be_registered_is_a_usage_error(pytester: pytest.Pytester, light: Run) -> None:
    pytester.makeconftest(
        """
        def pytest_il_bench_register(registry):
            registry.policy("mine", print, environment="sea")
        """
    )
    result = light()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: pytest_il_bench_register: policy 'mine': no environment 'sea' was added*"]
    )


def test_a_track_in_a_baselines_file_is_pushts_or_a_registered_environment(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    registry = Registry()
    registry.environment("reach", print, max_steps=20)
    registry.policy("reacher", print, environment="reach")

    def check(track: str) -> None:
        path.write_text(json.dumps({"schema": 1, "gates": {"reacher": {track: {"target": {"value": 0.5}}}}}))
        choices = registry.choices(tmp_path)
        collect.check_baselines(given(tmp_path, project_policies=choices, il_baselines=str(path)))

    check("reach")
    with pytest.raises(
        IlBenchError, match=r"gates\.reacher\.rech: unknown track; .* keypoints, pixels, reach"
    ):
        check("rech")


# ---- the registry


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (lambda r: r.policy("a b", print), "policy 'a b' is not a usable name"),
        (lambda r: r.policy("expert", print), "'expert' is one of il_bench's own rows"),
        (lambda r: r.policy("mine", 3), "policy 'mine': 3 is neither a checkpoint nor a function"),
        (lambda r: [r.policy("mine", print), r.policy("mine", print)], "policy 'mine' is added twice"),
        (
            lambda r: r.policy("mine", print, version=2),
            "policy 'mine': version 2 is not a string, such as '1'",
        ),
        (lambda r: r.tokenizer("grid", 16), "tokenizer 'grid': 16 cannot be called"),
        (lambda r: r.environment("pixels", print, max_steps=9), "environment 'pixels' is a track of PushT"),
        (
            lambda r: r.environment("sea", print, max_steps=0),
            "environment 'sea': max_steps 0 is not a number",
        ),
    ],
)
def test_unusable_names_and_things_are_refused(add: Callable[[Registry], Any], said: str) -> None:
    with pytest.raises(IlBenchError) as raised:
        add(Registry())
    assert said in str(raised.value)


def test_a_call_that_gives_no_policy_is_named() -> None:
    registry = Registry()
    registry.policy("mine", lambda device: 3)
    with pytest.raises(IlBenchError, match=r"policy 'mine': .*<lambda> gave 3, which has no reset\(\)"):
        load(registry.policies["mine"].choice(), registry, "cpu")


def test_a_checkpoint_can_be_registered(checkpoint: Path) -> None:
    registry = Registry()
    registry.policy("mine", checkpoint, data="a robot of ours")
    loaded = load(registry.policies["mine"].choice(), registry, "cpu")
    assert (loaded.name, loaded.track, loaded.data) == ("mine", "keypoints", "a robot of ours")
    assert not registry.policies["mine"].choice().in_process


# ---- what is resumed


class Counted(Still):
    """How many blocks it has begun."""

    n_blocks = 0

    def reset(self) -> None:
        Counted.n_blocks += 1

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["observation.state"]


def blocks_run(folder: Path, version: str | None, *, resume: bool) -> int:
    """How many blocks a run of a project's policy has begun."""
    registry = Registry()
    registry.policy("mine", lambda device: Counted(), version=version)
    (folder / "none.json").write_text('{"schema": 1, "gates": {}}')
    values = {"il_episodes": 100, "il_resume": resume, "il_baselines": "none.json", "il_workers": 1}
    settings = given(folder, project_policies=registry.choices(folder), il_policy=["mine"], **values)
    Counted.n_blocks = 0
    measure = Measure(settings, Evaluate(settings), registry)
    measure.policy(load(settings.policies[0], registry, "cpu"))
    assert settings.starts_over == (("mine",) if resume and version is None else ())
    return Counted.n_blocks


def test_code_is_resumed_only_if_its_project_says_that_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MAX_STEPS", 3)
    assert blocks_run(tmp_path, None, resume=False) == 2
    assert blocks_run(tmp_path, None, resume=True) == 2
    assert not (tmp_path / "il-bench-report" / "journal").exists()
    assert blocks_run(tmp_path, "1", resume=True) == 2
    assert blocks_run(tmp_path, "1", resume=True) == 0
    with pytest.raises(IlBenchError, match=r"journal/mine\.keypoints\.jsonl: .* \(version was '1', is '2'\)"):
        blocks_run(tmp_path, "2", resume=True)
    assert blocks_run(tmp_path, "2", resume=False) == 2


@pytest.mark.parametrize(
    ("source", "more", "has_journal"),
    [
        ("runs/mine", {}, True),
        ("runs/mine", {"environment": "sea"}, False),
        ("runs/mine", {"environment": "sea", "version": "1"}, True),
        (print, {}, False),
        (print, {"version": "1"}, True),
    ],
)
def test_a_journal_needs_a_version_of_whatever_code_runs(
    tmp_path: Path, source: Any, more: dict[str, Any], has_journal: bool
) -> None:
    registry = Registry()
    registry.policy("mine", source, **more)
    assert registry.choices(tmp_path)["mine"].has_journal is has_journal


# ---- episodes in an environment


def opened(registered: RegisteredEnvironment) -> EnvironmentRollout:
    return EnvironmentRollout(registered.name, registered.make, registered.max_steps, registered.observe)


class Noisy(Still):
    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.rand(1, 2) - 0.5


def test_an_episode_is_the_same_whichever_others_run_also_what_is_drawn_in_it(example: Registry) -> None:
    reacher = load(example.policies["reacher"].choice(), example, "cpu")
    with opened(example.environments["reach"]) as environment:
        for policy in (Noisy(), reacher):
            alone = environment.run_block(policy, np.array([FIRST + 4]))
            among = environment.run_block(policy, np.arange(FIRST, FIRST + 6))
            assert among.to_records()[4] == alone.to_records()[0]
            if policy is not reacher:
                assert 0 < alone.outside[0] < 20 and len(set(among.outside.tolist())) > 1
    assert among.success.tolist() == [(FIRST + i) % 3 != 0 for i in range(6)]
    assert among.max_reward.tolist() == among.success.tolist()


def test_actions_outside_the_space_are_counted_and_pass(example: Registry) -> None:
    from reach.policies import Reacher

    with opened(example.environments["reach"]) as environment:
        fast = environment.run_block(Reacher(speed=5.0), np.array([FIRST]))
    assert fast.outside[0] > 0 and fast.n_steps[0] <= 20
