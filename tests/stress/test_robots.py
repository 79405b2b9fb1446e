"""Robots that do not wait, against episodes written down by hand."""

from typing import Any

import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import load_policy
from il_bench.policies.checkpoint.loaded_policy import wrap_object
from il_bench.policies.expert import ExpertPolicy
from il_bench.stress.robots import OverlappingRobot, WaitingRobot

HOME = 7.0  # where the agent is


class Counting:
    """Predicts chunks whose actions say when they were predicted: prediction p at step t gives 100 p + i."""

    class config:  # noqa: N801
        n_action_steps = 3
        input_features: dict[str, Any] = {}  # noqa: RUF012

    chunk_size = 6

    def reset(self) -> None:
        self.queue: list[torch.Tensor] = []
        self.seen: list[float] = []
        self.predicted: list[int] = []

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.seen.append(batch["observation.state"][0, 0].item())
        if not self.queue:
            self.queue = list(self.predict_action_chunk(batch)[:, : self.config.n_action_steps].unbind(1))
        return self.queue.pop(0)

    def predict_action_chunk(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.predicted.append(len(self.seen))
        first = 100.0 * len(self.predicted)
        return (first + torch.arange(self.chunk_size)).view(1, -1, 1).expand(1, -1, 2)


def targets(robot: Any, n_steps: int) -> list[float]:
    """The first coordinate of the robot's targets; at step t the agent is at HOME + t / 100."""
    robot.reset()
    found = []
    for step in range(n_steps):
        action = robot.select_action({"observation.state": torch.full((1, 2), HOME + step / 100)})
        assert action.shape == (1, 2)
        found.append(round(action[0, 0].item(), 3))
    return found


@pytest.mark.parametrize(
    ("latency", "expected"),
    [
        (1, [100, 101, 102, 200, 201, 202, 300, 301]),
        (2, [HOME, 100, 101, 102, 102, 200, 201, 202]),
        (4, [HOME, HOME, HOME, 100, 101, 102, 102, 102]),
    ],
)
def test_a_waiting_robot_holds_its_last_target_until_the_chunk_is_there(
    latency: int, expected: list[float]
) -> None:
    robot = WaitingRobot(wrap_object(Counting(), name="counting", checkpoint=""), latency)
    assert targets(robot, 8) == expected


def overlapping(latency: int) -> tuple[OverlappingRobot, Counting]:
    policy = Counting()
    return OverlappingRobot(wrap_object(policy, name="counting", checkpoint=""), latency), policy


def test_chunks_overlap_as_in_lerobots_asynchronous_inference() -> None:
    """Latency 2: the first chunk is there at step 2. When half of it is left, the next one is asked for."""
    robot, policy = overlapping(2)
    found = targets(robot, 9)
    # Step 0 asks for 100..105, numbered 0..5; they begin at step 2. At step 4 (number 2 carried out) three of
    # six are left: asks for 200.., numbered from 2. At step 6 number 3 has been carried out; what is left of
    # the new chunk is 4..7, its 202..205; of the old one 104 and 105 are averaged in.
    old = [0.3 * 104 + 0.7 * 202, 0.3 * 105 + 0.7 * 203]
    assert found[:8] == pytest.approx([HOME, HOME, 100, 101, 102, 103, *old])
    assert policy.seen == pytest.approx([HOME + step / 100 for step in range(9)])  # its history has no gaps


def test_a_robot_whose_policy_is_slower_than_its_chunk_holds_its_last_target() -> None:
    robot, policy = overlapping(9)
    found = targets(robot, 24)
    # Asked at step 0, there at step 9; asked again at step 11 (half is left), there at step 20. Meanwhile
    # numbers 3, 4, 5 run out at step 14; the new chunk is numbered from 2, and goes on with number 6.
    assert found[:9] == [HOME] * 9
    assert found[9:15] == [100, 101, 102, 103, 104, 105]
    assert found[15:20] == [105] * 5
    assert found[20:22] == [204, 205]
    assert len(policy.predicted) == 3


def test_an_action_relative_to_the_agent_at_its_own_step_is_relative_to_it_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = load_policy("diffusion")
    monkeypatch.setattr(policy.policy, "predict_action_chunk", lambda batch, **_: torch.zeros(1, 7, 2))
    robot = OverlappingRobot(policy, 2)
    robot.reset()
    ahead = []
    for step in range(12):
        place = torch.full((1, 2), 200.0 + 10 * step)
        seen = {"observation.state": place, "observation.environment_state": torch.full((1, 16), 300.0)}
        ahead.append((robot.select_action(seen) - place)[0, 0].item())
    assert ahead[2:] == pytest.approx([ahead[2]] * 10, abs=1e-3)


def test_overlapping_needs_chunks() -> None:
    with pytest.raises(IlBenchError, match="expert has no predict_action_chunk"):
        OverlappingRobot(load_policy("expert"), 2)
    with pytest.raises(IlBenchError, match="ExpertPolicy has no predict_action_chunk"):
        OverlappingRobot(ExpertPolicy(), 2)


@pytest.mark.parametrize("name", ["bet", "bc", "vqbet", "act", "diffusion"])
def test_every_shipped_policy_overlaps_and_is_left_as_it_was(name: str) -> None:
    policy = load_policy(name)
    before = policy.policy.config.n_action_steps
    robot = OverlappingRobot(policy, 1)
    robot.reset()
    seen = {
        "observation.state": torch.full((2, 2), 200.0),
        "observation.environment_state": torch.rand(2, 16) * 100 + 200,
    }
    for _ in range(4):
        action = robot.select_action(seen)
    assert robot._size > 2
    assert torch.isfinite(action).all() and ((action > -100) & (action < 612)).all()
    assert policy.policy.config.n_action_steps == before
    assert "predict_action_chunk" not in vars(policy.policy)
