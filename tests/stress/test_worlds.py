"""Each disturbed world, against PushT itself: gym-pusht with the one thing changed, or by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gym_pusht.envs.pusht import PushTEnv as Reference

from il_bench.pusht.batch import PushTBatch
from il_bench.pusht.env import PushTEnv
from il_bench.stress import worlds
from il_bench.stress.arms import ARMS
from tests.pusht.test_against_gym_pusht import push

SEEDS = [200000, 200003, 200011]


class Constant(Reference):
    """gym-pusht with one constant of its physics changed, set where it is used."""

    def __init__(self, **constants: float) -> None:
        super().__init__("state", damping=constants.get("damping"))
        self.constants = constants
        self.k_p = constants.get("k_p", self.k_p)

    def _setup(self) -> None:
        super()._setup()
        for shape in self.space.shapes:
            shape.friction = self.constants.get("friction", shape.friction)


def in_step(batch: PushTBatch, envs: list[Any], n_steps: int = 60) -> None:
    """Push blocks about in both; every world of the batch is its environment to the bit."""
    for step in range(n_steps):
        poses = [env._get_info()["block_pose"] for env in envs]
        assert batch.pose.tolist() == [pose.tolist() for pose in poses], f"step {step}"
        assert batch.agent.tolist() == [list(env.agent.position) for env in envs], f"step {step}"
        rng = np.random.default_rng(step)
        actions = np.array([push(rng, env._get_info()) for env in envs])
        batch.step(actions)
        for env, action in zip(envs, actions, strict=True):
            env.step(action)


@pytest.mark.parametrize("name", ["friction", "damping", "gain"])
def test_changed_physics_is_gym_pushts_with_that_constant_changed(name: str) -> None:
    for level in ARMS[name].levels:
        make = ARMS[name].worlds
        assert make is not None
        batch = make(level)
        batch.reset(SEEDS)
        constant = "k_p" if name == "gain" else name
        envs = [Constant(**{constant: level}) for _ in SEEDS]
        for env, seed in zip(envs, SEEDS, strict=True):
            env.reset(seed=seed)
        in_step(batch, envs)


def test_a_block_is_pushed_once_and_all_else_is_gym_pusht() -> None:
    batch = worlds.PushedBlocks(40)
    batch.reset(SEEDS)
    envs = [Reference("state") for _ in SEEDS]
    for env, seed in zip(envs, SEEDS, strict=True):
        env.reset(seed=seed)
    moved = []
    for step in range(70):
        rng = np.random.default_rng(step)
        actions = np.array([push(rng, env._get_info()) for env in envs])
        for row, env in enumerate(envs):
            if batch._at[row] == step:
                before = np.array(env.block.position)
                by = worlds.away_from_walls(
                    np.array(env.block.local_to_world(env.block.center_of_gravity)), batch._by[row]
                )
                env.block.position = tuple((before + by).tolist())
                moved.append(np.linalg.norm(np.array(env.block.position) - before))
            env.step(actions[row])
        batch.step(actions)
        assert batch.pose.tolist() == [env._get_info()["block_pose"].tolist() for env in envs]
    assert moved == pytest.approx([40, 40, 40])


@pytest.mark.parametrize(
    ("middle", "by", "moved"),
    [((256, 256), (40, 0), (40, 0)), ((400, 256), (40, 5), (-40, 5)), ((100, 110), (-20, -20), (20, 20))],
)
def test_no_push_ends_in_a_wall(middle: Any, by: Any, moved: Any) -> None:
    assert worlds.away_from_walls(np.array(middle, float), np.array(by, float)).tolist() == list(moved)


def test_a_start_differs_by_the_place_of_the_block_alone() -> None:
    batch, env = worlds.StartsAbove(30), PushTEnv()
    batch.reset(SEEDS)
    for row, seed in enumerate(SEEDS):
        ax, ay, bx, _, angle = PushTBatch().start_of(seed)
        env.reset(options={"reset_to_state": [ax, ay, bx, 70.0, angle]})
        assert batch.pose[row].tolist() == env._info()["block_pose"].tolist()
        assert batch.agent[row].tolist() == env._info()["pos_agent"].tolist()


def carried_out(batch: PushTBatch, monkeypatch: pytest.MonkeyPatch, n_steps: int) -> np.ndarray:
    """The targets (T, B, 2) that reach the worlds; at step t the policy wants (100 + t, 200)."""
    found = []

    def step(self: Any, actions: np.ndarray, active: Any = None) -> np.ndarray:
        found.append(np.array(actions, float))
        return self.coverage

    monkeypatch.setattr(PushTBatch, "step", step)
    batch.reset(SEEDS)
    for t in range(n_steps):
        batch.step(np.tile([100.0 + t, 200.0], (len(SEEDS), 1)))
    return np.array(found)


def test_late_actions_come_later_and_the_agent_stays_until_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = worlds.LateActions(2)
    found = carried_out(batch, monkeypatch, 5)
    assert found[:2].tolist() == [batch.agent.tolist()] * 2
    assert found[2:, 0, 0].tolist() == [100, 101, 102]


@pytest.mark.parametrize("stops", [False, True], ids=["hold", "drop"])
def test_lost_actions_hold_or_stop(monkeypatch: pytest.MonkeyPatch, stops: bool) -> None:
    batch = worlds.LostActions(0.3, stops=stops)
    found = carried_out(batch, monkeypatch, 300)
    wanted = 100.0 + np.arange(300)
    for row in range(len(SEEDS)):
        targets, lost = found[:, row, 0], found[:, row, 0] != wanted
        assert 0.2 < lost.mean() < 0.4
        before = np.concatenate([batch.agent[row, :1], targets[:-1]])
        assert (targets[lost] == (batch.agent[row, 0] if stops else before[lost])).all()


def test_noise_has_the_level_as_its_standard_deviation_and_leaves_the_worlds_alone() -> None:
    noisy, plain = worlds.NoisyObservations(2), PushTBatch()
    differences = []
    for batch in (noisy, plain):
        batch.reset(SEEDS)
    for _ in range(100):
        seen, true = noisy.observations(), plain.observations()
        differences += [(seen[key] - true[key]).ravel() for key in true]
        for batch in (noisy, plain):
            batch.step(np.full((3, 2), 256.0))
    assert noisy.pose.tolist() == plain.pose.tolist()
    assert np.std(np.concatenate(differences)) == pytest.approx(2, rel=0.05)
    assert np.mean(np.concatenate(differences)) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: worlds.NoisyObservations(2),
        lambda: worlds.LostActions(0.3, stops=True),
        lambda: worlds.PushedBlocks(20),
    ],
    ids=["noise", "drop", "push"],
)
def test_what_is_drawn_for_a_seed_depends_on_no_other_seed(make: Callable[[], PushTBatch]) -> None:
    together, alone = make(), make()
    together.reset(SEEDS)
    alone.reset(SEEDS[2:])
    for _ in range(70):
        seen, own = together.observations(), alone.observations()
        assert all((seen[key][2] == own[key][0]).all() for key in own)
        together.step(np.full((3, 2), 300.0))
        alone.step(np.full((1, 2), 300.0))
    assert together.pose[2].tolist() == alone.pose[0].tolist()
