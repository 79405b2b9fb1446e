"""Two environments, one seed, the same actions: gym-pusht's and ours agree to the bit at every step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gym_pusht.envs.pusht import PushTEnv as Reference

from il_bench.pusht import simulator
from il_bench.pusht.env import PushTEnv
from il_bench.pusht.geometry import block_keypoints

OBS_TYPES = ("state", "environment_state_agent_pos")
SUCCESS = 0.95
WALL = 506.0 - 2.0, 5.0 + 2.0  # inner faces
Actor = Callable[[np.random.Generator, dict[str, Any]], np.ndarray]


def assert_same_bits(ours: Any, theirs: Any, what: str) -> None:
    """Same structure, dtypes, shapes and bits: 0.0 and -0.0 are different, nan and nan are not."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), f"{what}: keys {list(ours)} and {list(theirs)}"
        for key in theirs:
            assert_same_bits(ours[key], theirs[key], f"{what}[{key!r}]")
        return
    a, b = np.asarray(ours), np.asarray(theirs)
    assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{what}: {a.dtype}{a.shape} and {b.dtype}{b.shape}"
    assert a.tobytes() == b.tobytes(), f"{what}: ours {a.tolist()}, gym-pusht's {b.tolist()}"


def assert_same_step(ours: tuple[Any, ...], theirs: tuple[Any, ...], where: str) -> None:
    """Coverage and reward within 1e-12 and on the same side of success; all else to the bit."""
    *ours_result, ours_info = ours
    *theirs_result, theirs_info = theirs
    ours_info, theirs_info = dict(ours_info), dict(theirs_info)
    a, b = ours_info.pop("coverage"), theirs_info.pop("coverage")
    assert abs(a - b) < 1e-12, f"{where}: coverage {a!r}, gym-pusht's {b!r}"
    assert (a > SUCCESS) == (b > SUCCESS), f"{where}: coverage {a!r}, gym-pusht's {b!r}"
    assert abs(ours_result[1] - theirs_result[1]) < 1e-12, f"{where}: reward"
    assert_same_bits(ours_result[0], theirs_result[0], f"{where}: observation")
    assert ours_result[2:] == theirs_result[2:], f"{where}: terminated, truncated {ours_result[2:]}"
    assert_same_bits(ours_info, theirs_info, f"{where}: info")


def assert_same_episode(
    ours: PushTEnv, theirs: Reference, seed: int, act: Actor, n_steps: int
) -> list[dict[str, Any]]:
    """Run one episode in both, on after success; return gym-pusht's infos, one a step."""
    rng = np.random.default_rng(seed)
    ours_start, theirs_start = ours.reset(seed=seed), theirs.reset(seed=seed)
    assert_same_bits(dict(enumerate(ours_start)), dict(enumerate(theirs_start)), f"seed {seed}, reset")
    infos = [theirs_start[1]]
    for step in range(n_steps):
        action = act(rng, infos[-1])
        theirs_step = theirs.step(action)
        assert_same_step(ours.step(action), theirs_step, f"seed {seed}, step {step}")
        infos.append(theirs_step[-1])
    return infos[1:]


def anywhere(rng: np.random.Generator, info: dict[str, Any]) -> np.ndarray:
    return rng.uniform(0, 512, 2).astype(np.float32)


def push(rng: np.random.Generator, info: dict[str, Any]) -> np.ndarray:
    """Mostly drive through the block, towards and into the walls; sometimes go elsewhere."""
    if rng.random() < 0.05:
        return anywhere(rng, info)
    middle = block_keypoints(info["block_pose"]).reshape(8, 2).mean(axis=0)
    away = middle - info["pos_agent"]
    target = middle + 80 * away / np.linalg.norm(away) + rng.normal(0, 15, 2)
    return np.clip(target, 0, 512).astype(np.float32)


def n_at_walls(infos: list[dict[str, Any]]) -> int:
    """Steps after which a corner of the block touches a wall."""
    corners = block_keypoints(np.array([info["block_pose"] for info in infos]))
    return int(((corners > WALL[0] - 0.2) | (corners < WALL[1] + 0.2)).any(axis=1).sum())


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_random_actions_and_pushing_the_block_into_walls(obs_type: str) -> None:
    ours, theirs = PushTEnv(obs_type), Reference(obs_type)
    for seed in range(200000, 200008):
        assert_same_episode(ours, theirs, seed, anywhere, 100)
    infos = []
    for seed in range(200100, 200110):
        infos += assert_same_episode(ours, theirs, seed, push, 150)
    assert sum(info["n_contacts"] for info in infos) > 800
    assert n_at_walls(infos) > 200


@pytest.mark.slow
def test_20000_steps_in_contact_and_2000_at_walls() -> None:
    ours, theirs = PushTEnv(), Reference()
    infos = []
    for seed in range(200200, 200400):
        infos += assert_same_episode(ours, theirs, seed, anywhere, 50)
        infos += assert_same_episode(ours, theirs, seed, push, 200)
    assert sum(info["n_contacts"] for info in infos) >= 20_000
    assert n_at_walls(infos) >= 2_000


def test_success_is_reached_on_the_same_step() -> None:
    """Start short of the goal, push the block there along its axis of symmetry."""
    ours, theirs = PushTEnv(), Reference()
    angle = np.pi / 4
    axis = np.array([-np.sin(angle), np.cos(angle)])  # from the bar to the stem's end
    block = np.array([256.0, 256.0]) - 30 * axis
    agent = block - 40 * axis
    # What puts the block there, given that it is turned about its centre of mass.
    state = [*agent, *(block + 45 * axis - [0, 45]), angle]
    for env in (ours, theirs):
        env.reset(seed=0, options={"reset_to_state": state})
    done = []
    for step in range(60):
        action = (agent + 1.2 * (step + 1) * axis).astype(np.float32)
        ours_step, theirs_step = ours.step(action), theirs.step(action)
        assert_same_step(ours_step, theirs_step, f"step {step}")
        done.append(ours_step[2])
    assert any(done) and not done[0]


@pytest.mark.parametrize(
    "state",
    [
        [0.0, 10.0, 20.0, 30.0, 1.0],
        [256, 400, 256, 300, 0],
        np.array([100.0, 100.0, 120.0, 110.0, -2.5]),  # the agent inside the block
        np.array([300, 300, 480, 490, 0.3], np.float32),  # the block in a corner
    ],
    ids=["readme", "integers", "overlap", "wall"],
)
def test_reset_to_state_has_the_same_legacy_meaning(state: Any) -> None:
    ours, theirs = PushTEnv(), Reference()
    options = {"reset_to_state": state}
    starts = [dict(enumerate(env.reset(seed=3, options=options))) for env in (ours, theirs)]
    assert_same_bits(*starts, "reset")
    rng = np.random.default_rng(0)
    for step in range(30):
        action = anywhere(rng, {})
        assert_same_step(ours.step(action), theirs.step(action), f"step {step}")


def test_reset_without_a_seed_draws_on_and_arguments_change_the_physics() -> None:
    arguments = {"block_cog": (5.0, 30.0), "damping": 0.4}
    ours, theirs = PushTEnv(**arguments), Reference(**arguments)
    assert_same_episode(ours, theirs, 200001, push, 60)
    for _ in range(3):
        assert_same_bits(ours.reset()[0], theirs.reset()[0], "reset")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_actions_of_other_types(dtype: type) -> None:
    assert_same_episode(PushTEnv(), Reference(), 200002, lambda *seen: push(*seen).astype(dtype), 40)


def test_actions_outside_the_arena_are_carried_out() -> None:
    def act(rng: np.random.Generator, info: dict[str, Any]) -> np.ndarray:
        return rng.uniform(-600, 1100, 2).astype(np.float32)

    infos = assert_same_episode(PushTEnv(), Reference(), 200003, act, 40)
    assert any((info["pos_agent"] > 512).any() for info in infos)


@pytest.mark.parametrize("obs_type", ["pixels", "pixels_agent_pos"])
def test_pixels(obs_type: str) -> None:
    ours, theirs = PushTEnv(obs_type), Reference(obs_type)
    assert_same_episode(ours, theirs, 200004, push, 10)
    assert_same_bits(ours.render(), theirs.render(), "render")
    assert ours.observation_space == theirs.observation_space


# That these comparisons would notice anything.


class OneBitOff(PushTEnv):
    """Step 17 shows the neighbouring float of one entry of one array, as an observation or an info."""

    def __init__(self, obs_type: str, where: Callable[[Any, dict[str, Any]], np.ndarray]) -> None:
        super().__init__(obs_type)
        self.where, self.n_steps = where, 0

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = super().step(action)
        if self.n_steps == 17:
            array = self.where(result[0], result[-1])
            array[-1] = np.nextafter(array[-1], np.inf)
        self.n_steps += 1
        return result


@pytest.mark.parametrize(
    ("obs_type", "where", "shown"),
    [
        ("state", lambda obs, info: obs, "observation"),
        ("environment_state_agent_pos", lambda obs, info: obs["environment_state"], "environment_state"),
        ("environment_state_agent_pos", lambda obs, info: obs["agent_pos"], "agent_pos"),
        ("state", lambda obs, info: info["block_pose"], "block_pose"),
        ("state", lambda obs, info: info["vel_agent"], "vel_agent"),
        ("state", lambda obs, info: info["goal_pose"], "goal_pose"),
    ],
)
def test_one_bit_in_one_value_is_noticed(obs_type: str, where: Any, shown: str) -> None:
    with pytest.raises(AssertionError, match=f"seed 200000, step 17: .*{shown}"):
        assert_same_episode(OneBitOff(obs_type, where), Reference(obs_type), 200000, anywhere, 30)


@pytest.mark.parametrize("constant", ["K_P", "K_V", "DT"])
def test_one_bit_in_a_constant_of_the_physics_is_noticed(
    monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    monkeypatch.setattr(simulator, constant, np.nextafter(getattr(simulator, constant), np.inf).item())
    with pytest.raises(AssertionError, match=r"seed 200000, (reset|step \d+): "):
        assert_same_episode(PushTEnv(), Reference(), 200000, anywhere, 30)


def test_one_bit_in_a_start_state_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    start_state = simulator.start_state

    def off(rng: np.random.Generator) -> tuple[float, ...]:
        *position, angle = start_state(rng)
        return (*position, np.nextafter(angle, np.inf).item())

    monkeypatch.setattr("il_bench.pusht.env.start_state", off)
    with pytest.raises(AssertionError, match="seed 200000, reset"):
        assert_same_episode(PushTEnv(), Reference(), 200000, anywhere, 30)
