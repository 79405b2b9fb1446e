"""What gymnasium expects of the environment; its physics are held against gym-pusht elsewhere."""

import gc
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import il_bench.pusht
from il_bench.errors import IlBenchError
from il_bench.pusht.env import OBS_TYPES, PushTEnv

CENTRE = np.array([256, 256], np.float32)


@pytest.fixture(autouse=True)
def no_sound_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")


@pytest.mark.parametrize("obs_type", OBS_TYPES)
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space", "ignore:pkg_resources")
def test_gymnasiums_checker_passes(obs_type: str) -> None:
    """From a seed on: as in gym-pusht, few starts have a keypoint outside of the space that is declared."""
    env = gymnasium.make("il_bench/PushT-v0", obs_type=obs_type).unwrapped
    env.reset(seed=7)  # the checker's first reset goes on with its random numbers
    check_env(env)


def test_made_by_name_it_is_cut_off_after_300_steps() -> None:
    env = gymnasium.make("il_bench/PushT-v0")
    env.reset(seed=200000)
    for step in range(1, il_bench.pusht.MAX_STEPS + 1):
        *_, terminated, truncated, _ = env.step(CENTRE)
        assert (terminated, truncated) == (False, step == il_bench.pusht.MAX_STEPS), step


def test_contacts_are_counted_unless_switched_off() -> None:
    contacts: dict[bool, list[int]] = {}
    observations: dict[bool, list[Any]] = {}
    for counted in (True, False):
        env = PushTEnv(count_contacts=counted)
        env.reset(options={"reset_to_state": [150.0, 256.0, 256.0, 256.0, 0.0]})
        steps = [env.step(np.array([380, 256], np.float32)) for _ in range(10)]
        contacts[counted] = [step[-1]["n_contacts"] for step in steps]
        observations[counted] = [step[0] for step in steps]
    assert 0 < sum(contacts[True]) < 10
    assert sum(contacts[False]) == 0
    np.testing.assert_array_equal(observations[True], observations[False])


def test_an_image_can_be_drawn_in_every_size() -> None:
    env = PushTEnv("pixels", observation_width=64, observation_height=48, visualization_width=200)
    observation, _ = env.reset(seed=0)
    assert (observation.shape, observation.dtype) == ((48, 64, 3), np.uint8)
    assert env.render().shape == (680, 200, 3)
    assert PushTEnv(render_mode=None).render() is None
    env.close()


def test_a_window_can_be_opened_and_closed() -> None:
    env = PushTEnv(render_mode="human")
    env.reset(seed=0)
    env.step(CENTRE)
    assert env.render() is None
    env.close()
    env.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"obs_type": "keypoints"}, "obs_type 'keypoints' is unknown.*environment_state_agent_pos"),
        ({"render_mode": "ansi"}, "render_mode 'ansi' is unknown.*rgb_array"),
    ],
)
def test_unknown_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(IlBenchError, match=message):
        PushTEnv(**arguments)


@pytest.mark.parametrize(
    "action",
    [[np.nan, 1.0], [1.0, np.inf], [1.0], [1.0, 2.0, 3.0], 5.0, None, [[1.0, 2.0], [3.0, 4.0]], ["a", "b"]],
)
def test_actions_that_are_not_two_finite_numbers_are_refused(action: Any) -> None:
    env = PushTEnv()
    env.reset(seed=0)
    with pytest.raises(IlBenchError, match="action must be"):
        env.step(action)


def test_impossible_start_states_and_a_step_before_reset_are_refused() -> None:
    for state in ([1.0, 2.0], [0.0, 0.0, 0.0, np.nan, 0.0]):
        with pytest.raises(IlBenchError, match="a state is 5 finite numbers"):
            PushTEnv().reset(options={"reset_to_state": state})
    for use in (lambda: PushTEnv().step(CENTRE), PushTEnv().render):
        with pytest.raises(IlBenchError, match=r"before the first reset\(\)"):
            use()


def test_contacts_are_counted_after_resets_and_garbage_collection() -> None:
    env = PushTEnv()
    counts = []
    for _ in range(3):
        env.reset(options={"reset_to_state": [256.0, 200.0, 256.0, 300.0, 0.0]})
        gc.collect()
        counts.append([env.step(np.array([256.0, 400.0]))[-1]["n_contacts"] for _ in range(10)])
    assert counts[0] == counts[1] == counts[2]
    assert set(counts[0]) == {0, 1}
