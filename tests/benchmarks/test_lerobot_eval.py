"""The compatibility mode against LeRobot itself: its evaluation in this process, and its command."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import lerobot_eval
from benchmarks.lerobot_eval import LeRobotOutcomes, rollout_as_lerobot
from il_bench.errors import IlBenchError
from il_bench.machine import one_thread
from il_bench.policies.checkpoint import Checkpoint, LoadedPolicy, load_policy
from tests.small_policies import act_on_pixels, save_diffusion

SEED = 100_020
EASY = 0.15  # a share of the goal that policies without training reach now and then


@pytest.fixture(scope="session")
def diffusion_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `pretrained_model` folder of a tiny diffusion policy, never trained: it pushes about at random."""
    return save_diffusion(tmp_path_factory.mktemp("policies") / "tiny_diffusion")


@pytest.fixture
def diffusion(diffusion_checkpoint: Path) -> LoadedPolicy:
    return load_policy(diffusion_checkpoint)


@pytest.fixture
def easy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes end at EASY, so that there are some that end early."""
    monkeypatch.setattr(lerobot_eval, "SUCCESS_COVERAGE", EASY)


def evaluation_in_gym_pusht(folder: Path, n_episodes: int, batch_size: int) -> list[dict[str, Any]]:
    """LeRobot's `eval_policy`, prepared as its `eval_main` does it, in gym-pusht where success is EASY.

    On one thread, as ours: torch's sums round differently when two threads share them.
    """
    from lerobot.configs import PreTrainedConfig
    from lerobot.envs.configs import PushtEnv
    from lerobot.envs.factory import make_env, make_env_pre_post_processors
    from lerobot.policies.factory import make_policy, make_pre_post_processors
    from lerobot.scripts.lerobot_eval import eval_policy
    from lerobot.utils.random_utils import set_seed

    env_config = PushtEnv(obs_type="environment_state_agent_pos")
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    with one_thread(), torch.random.fork_rng():
        set_seed(SEED)
        env = make_env(env_config, n_envs=batch_size)["pusht"][0]
        env.set_attr("success_threshold", EASY)
        policy = make_policy(config, env_cfg=env_config)
        with pytest.warns(UserWarning, match="task_description"):  # of no use to these policies
            info = eval_policy(
                env,
                policy,
                *make_env_pre_post_processors(env_config, config),
                *make_pre_post_processors(config, pretrained_path=str(folder)),
                n_episodes=n_episodes,
                start_seed=SEED,
            )
    env.close()
    episodes: list[dict[str, Any]] = info["per_episode"]
    return episodes


def assert_equal(ours: LeRobotOutcomes, theirs: list[dict[str, Any]]) -> None:
    assert ours.outcomes.seeds.tolist() == [episode["seed"] for episode in theirs]
    assert ours.outcomes.success.tolist() == [episode["success"] for episode in theirs]
    expected = [episode["max_reward"] for episode in theirs]
    np.testing.assert_allclose(ours.outcomes.max_reward, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.sum_reward, [episode["sum_reward"] for episode in theirs], atol=1e-9)


@pytest.mark.usefixtures("easy")
@pytest.mark.filterwarnings("ignore:pkg_resources")
def test_counts_what_lerobots_eval_policy_counts_in_gym_pusht(
    diffusion: LoadedPolicy, diffusion_checkpoint: Path
) -> None:
    theirs = evaluation_in_gym_pusht(diffusion_checkpoint, n_episodes=8, batch_size=3)
    ours = rollout_as_lerobot(diffusion, n_episodes=8, batch_size=3, seed=SEED)
    assert_equal(ours, theirs)
    # Or there were nothing to agree on: episodes that end early, at different steps, and some that do not.
    assert 0 < ours.pc_success < 100
    assert np.unique(ours.outcomes.n_steps).size > 3
    assert (ours.past_done > 0).sum() > 1


@pytest.mark.usefixtures("easy")
def test_sum_reward_holds_the_next_episodes_first_reward_unless_the_episode_ended_last(
    diffusion: LoadedPolicy,
) -> None:
    one_by_one = rollout_as_lerobot(diffusion, n_episodes=5, batch_size=1, seed=SEED)
    assert one_by_one.outcomes.success.any()
    assert one_by_one.past_done.tolist() == [0, 0, 0, 0, 0]  # the batch is over with its only episode
    together = rollout_as_lerobot(diffusion, n_episodes=5, batch_size=5, seed=SEED)
    longest = together.outcomes.n_steps.max()
    goes_on = together.outcomes.n_steps < longest
    assert goes_on.any()
    assert (together.past_done[~goes_on] == 0).all()
    assert together.past_done[goes_on].max() > 0
    assert (together.outcomes.max_reward[goes_on] == 1).all()  # so one reward more cannot raise it


class ScriptedWorld(lerobot_eval._World):
    """Plays back coverages: seed 0 succeeds in its third step, seed 1 never does."""

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self.coverages = iter([[0.5, 0.9, 1.0, 0.2, 0.7], [0.1] * 300][seed])

    def coverage(self) -> float:
        return 0.95 * next(self.coverages, 0.0) + 1e-9


def test_the_worked_example_of_the_docstring(
    diffusion: LoadedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_eval, "_World", ScriptedWorld)
    result = rollout_as_lerobot(diffusion, n_episodes=2, batch_size=2, seed=0)
    np.testing.assert_allclose(result.sum_reward, [2.6, 30], atol=1e-6)
    np.testing.assert_allclose(result.past_done, [0.2, 0], atol=1e-6)
    np.testing.assert_allclose(result.outcomes.max_reward, [1, 0.1], atol=1e-6)
    assert result.outcomes.success.tolist() == [True, False]
    assert result.outcomes.n_steps.tolist() == [3, 300]
    assert result.pc_success == 50
    assert result.avg_sum_reward == pytest.approx(16.3)


@pytest.mark.usefixtures("easy")
def test_surplus_episodes_are_dropped_and_a_batch_is_no_larger_than_needed(diffusion: LoadedPolicy) -> None:
    six = rollout_as_lerobot(diffusion, n_episodes=6, batch_size=3, seed=SEED)
    five = rollout_as_lerobot(diffusion, n_episodes=5, batch_size=3, seed=SEED)
    three = rollout_as_lerobot(diffusion, n_episodes=3, batch_size=50, seed=SEED)  # nobody else went on
    for fewer, n in ((five, 5), (three, 3)):
        assert fewer.outcomes.to_records() == six.outcomes.to_records()[:n]
        assert fewer.sum_reward.tolist() == six.sum_reward[:n].tolist()


def test_leaves_the_global_generators_and_the_threads_as_they_were(diffusion: LoadedPolicy) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = [lerobot_eval.set_seed(7), draw()][1]
        lerobot_eval.set_seed(7)
        rollout_as_lerobot(diffusion, n_episodes=1, batch_size=1, seed=SEED)
        assert draw() == expected
        lerobot_eval.set_seed(7)
        with pytest.raises(IlBenchError):
            rollout_as_lerobot(broken(diffusion, float("nan")), n_episodes=1, batch_size=1, seed=SEED)
        assert draw() == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def broken(policy: LoadedPolicy, factor: float) -> LoadedPolicy:
    return replace(policy, postprocessor=lambda action: action * factor)


def test_bad_input_is_one_clear_error(diffusion: LoadedPolicy) -> None:
    for bad in ({"n_episodes": 0}, {"batch_size": 0}, {"seed": -1}):
        with pytest.raises(IlBenchError, match=f"{next(iter(bad))} must be at least"):
            rollout_as_lerobot(diffusion, **{"n_episodes": 1, "batch_size": 1, "seed": 0, **bad})
    with pytest.raises(IlBenchError, match=r"nan.*seeds 5-6, step 0"):
        rollout_as_lerobot(broken(diffusion, float("nan")), n_episodes=2, batch_size=2, seed=5)


def lerobot_eval_command(folder: Path, tmp_path: Path, n_episodes: int, batch_size: int) -> dict[str, Any]:
    """What the command `lerobot-eval` writes to its eval_info.json."""
    config = json.loads((folder / "config.json").read_text())
    pixels = "observation.image" in config["input_features"]
    arguments = [
        f"--policy.path={folder}",
        "--policy.device=cpu",
        "--env.type=pusht",
        f"--env.obs_type={'pixels' if pixels else 'environment_state'}_agent_pos",
        "--env.visualization_width=128",  # it always makes videos of the first ten episodes
        "--env.visualization_height=128",
        f"--eval.n_episodes={n_episodes}",
        f"--eval.batch_size={batch_size}",
        "--eval.use_async_envs=false",
        f"--seed={SEED}",
        f"--output_dir={tmp_path / 'eval'}",
    ]
    if config["type"].startswith("il_"):
        arguments.append("--policy.discover_packages_path=il_bench.policies")
    environment = {**os.environ, "SDL_VIDEODRIVER": "dummy", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    program = Path(sys.executable).with_name("lerobot-eval")
    done = subprocess.run(
        [program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    info: dict[str, Any] = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    return info


@pytest.mark.slow
@pytest.mark.parametrize("name", ["act", "act on pixels", "diffusion", "vqbet"])
def test_every_episode_is_lerobot_evals(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folders: dict[str, Callable[[], Path]] = {
        "act": lambda: request.getfixturevalue("checkpoint"),
        "act on pixels": lambda: act_on_pixels(tmp_path / "act"),
        "diffusion": lambda: request.getfixturevalue("diffusion_checkpoint"),
        "vqbet": lambda: Checkpoint.find("vqbet").folder,
    }
    folder = folders[name]()
    info = lerobot_eval_command(folder, tmp_path, n_episodes=3, batch_size=2)
    theirs = info["per_task"][0]["metrics"]
    ours = rollout_as_lerobot(load_policy(folder), n_episodes=3, batch_size=2, seed=SEED)
    assert ours.outcomes.success.tolist() == theirs["successes"]
    np.testing.assert_allclose(ours.outcomes.max_reward, theirs["max_rewards"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.sum_reward, theirs["sum_rewards"], rtol=0, atol=1e-9)
    overall = info["overall"]
    assert ours.pc_success == pytest.approx(overall["pc_success"])
    assert ours.avg_max_reward == pytest.approx(overall["avg_max_reward"])
    assert ours.avg_sum_reward == pytest.approx(overall["avg_sum_reward"])
