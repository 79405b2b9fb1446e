"""One demonstration: clean labels, disturbed execution, frames that can be replayed."""

import numpy as np
import pytest

from il_bench.demos.recording import Noise, record
from il_bench.protocol import MAX_STEPS
from il_bench.pusht.simulator import Simulator

SEED = 7


class Circling:
    """Says something else at every step, and never solves anything."""

    def reset(self) -> None:
        self.said: list[np.ndarray] = []

    def act(self, agent: np.ndarray, pose: np.ndarray) -> np.ndarray:
        step = len(self.said)
        self.said.append(np.array([256 + 150 * np.cos(0.3 * step), 256 + 150 * np.sin(0.3 * step)]))
        return self.said[-1]


def simulator() -> Simulator:
    simulator = Simulator()
    simulator.reset(SEED)
    return simulator


def replay(actions: np.ndarray) -> np.ndarray:
    """The agent's places before each action, (T, 2)."""
    world, places = simulator(), []
    for x, y in actions.astype(np.float64).tolist():
        places.append((world.agent_x, world.agent_y))
        world.step(x, y)
    return np.array(places)


def test_recorded_actions_replay_to_the_recorded_frames() -> None:
    recording = record(simulator(), Circling(), Noise(0.0, SEED))
    assert len(recording.action) == MAX_STEPS
    assert not recording.success
    np.testing.assert_array_equal(replay(recording.action), recording.agent)


def test_noise_disturbs_what_is_executed_and_not_what_is_recorded() -> None:
    circling = Circling()
    recording = record(simulator(), circling, Noise(0.2, SEED))
    np.testing.assert_array_equal(recording.action, np.array(circling.said, np.float32))
    off = np.linalg.norm(replay(recording.action) - recording.agent, axis=1)
    assert off[0] == 0.0
    assert off[5:].mean() > 2.0


def test_noise_is_an_ar1_process_in_angle_and_log_scale_of_its_size() -> None:
    size, agent, action = 0.1, np.array([256.0, 256.0]), np.array([266.0, 256.0])
    noise = Noise(size, SEED)
    way = np.array([noise(agent, action) - agent for _ in range(20_000)]) / 10.0
    for process in (np.arctan2(way[:, 1], way[:, 0]), np.log(np.linalg.norm(way, axis=1))):
        assert abs(process.mean()) < 0.02
        assert process.std() == pytest.approx(size, rel=0.1)
        assert np.corrcoef(process[:-1], process[1:])[0, 1] == pytest.approx(0.9, abs=0.02)


def test_noise_starts_at_its_full_size_and_differs_from_seed_to_seed() -> None:
    agent, action = np.array([256.0, 256.0]), np.array([266.0, 256.0])
    first = np.array([Noise(0.1, seed)(agent, action) - agent for seed in range(2_000)])
    assert np.arctan2(first[:, 1], first[:, 0]).std() == pytest.approx(0.1, rel=0.1)


def test_what_is_executed_stays_inside_the_world() -> None:
    noise = Noise(1.0, SEED)
    executed = np.array([noise(np.array([5.0, 500.0]), np.array([0.0, 512.0])) for _ in range(500)])
    assert executed.min() >= 0.0
    assert executed.max() <= 512.0
