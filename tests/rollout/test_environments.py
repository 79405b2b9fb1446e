"""Episodes in a project's own environment: what it has to say, what it may draw, and what is refused."""

import random
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.rollout.environments import EnvironmentRollout


class Broken(gymnasium.Env[Any, Any]):
    """An environment with a fault of choice."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space: gymnasium.spaces.Space[Any] = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, fault: str) -> None:
        self.fault = fault
        if fault == "discrete":
            self.action_space = gymnasium.spaces.Discrete(4)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.n_steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.fault == "step":
            raise ValueError("a motor is stuck")
        self.n_steps += 1
        info = {} if self.fault == "silent" else {"is_success": self.n_steps == 1}
        return np.zeros(2, np.float32), 0.0, self.fault != "passing", False, info


class Still:
    def __init__(self, shape: tuple[int, ...] = (1, 2)) -> None:
        self.shape = shape

    def reset(self) -> None: ...

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        assert batch["observation.state"].shape == (1, 2)
        return torch.zeros(self.shape)


def sea(fault: str) -> EnvironmentRollout:
    return EnvironmentRollout("sea", lambda: Broken(fault), 3, None)


STUCK = "in environment 'sea' at seed 7, step 0: ValueError: a motor is stuck (test_environments.py, line "


@pytest.mark.parametrize(
    ("fault", "policy", "said"),
    [
        ("silent", Still(), "at seed 7, step 0: the episode ended, and no info had 'is_success'"),
        ("step", Still(), STUCK),
        (
            "none",
            Still((2, 2)),
            "shape (2, 2) (torch.float32) at seed 7, step 0, expected a tensor of shape (1, 2)",
        ),
        ("discrete", Still(), "environment 'sea': its actions are Discrete(4)"),
    ],
)
def test_what_goes_wrong_in_an_environment_is_one_sentence(fault: str, policy: Still, said: str) -> None:
    with pytest.raises(IlBenchError) as raised, sea(fault) as environment:
        environment.run_block(policy, np.array([7]))
    assert said in str(raised.value)


@pytest.mark.parametrize("fault", ["none", "passing"])
def test_a_success_at_one_step_is_enough(fault: str) -> None:
    with sea(fault) as environment:
        outcomes = environment.run_block(Still(), np.array([7]))
    assert outcomes.success.all() and outcomes.n_steps.tolist() == [1]


class Says(Broken):
    """Says this of its only step."""

    def __init__(self, **said: Any) -> None:
        self.said = {"is_success": False, "terminated": True, "truncated": False, **said}

    def step(self, action: Any) -> tuple[Any, float, Any, Any, dict[str, Any]]:
        said = self.said
        info = {"is_success": said["is_success"]}
        return np.zeros(2, np.float32), 0.0, said["terminated"], said["truncated"], info


def outcome_of(**said: Any) -> bool:
    with EnvironmentRollout("sea", lambda: Says(**said), 3, None) as environment:
        return bool(environment.run_block(Still(), np.array([7])).success[0])


@pytest.mark.parametrize(
    "true", [True, 1, 1.0, np.True_, np.float32(1), np.array([True]), torch.tensor([[True]])]
)
def test_a_success_may_be_said_by_any_boolean(true: Any) -> None:
    assert outcome_of(is_success=true) is True
    assert outcome_of(is_success=true * 0) is False
    assert outcome_of(terminated=true) is False


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("False", "is 'False'; step() has to give True or False there"),
        ("", "is ''"),
        (0.7, "is 0.7"),
        (float("nan"), "is nan"),
        (np.float32("nan"), "is np.float32(nan)"),
        ({"task": True, "lift": False}, "is a dict with 'task', 'lift'"),
        (np.array([True, False]), "is a ndarray of shape (2,) (bool)"),
        (np.array([]), "is a ndarray of shape (0,)"),
        (torch.tensor([[0.5]]), "is a tensor of shape (1, 1) (torch.float32)"),
        ([True, True], "is a list of 2 (bool, bool)"),
        (object(), "is a object"),
        (1 + 0j, "is a complex"),
    ],
)
@pytest.mark.parametrize("name", ["is_success", "terminated", "truncated"])
def test_what_is_no_boolean_is_no_success(name: str, value: Any, said: str) -> None:
    with pytest.raises(IlBenchError) as raised:
        outcome_of(**{name: value})
    where = name if name != "is_success" else "info['is_success']"
    assert f"in environment 'sea' at seed 7, step 0: {where} {said}" in str(raised.value)


class Random(Broken):
    """Its start and its steps come from generators of the whole process."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        return np.random.rand(2).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        drawn = (random.random(), np.random.rand(), float(torch.rand(())))
        return np.zeros(2, np.float32), 0.0, min(drawn) < 0.2, False, {"is_success": max(drawn) > 0.9}


def test_an_environment_that_draws_from_any_generator_does_the_same_again() -> None:
    def records(*seeds: int) -> list[dict[str, Any]]:
        with EnvironmentRollout("sea", lambda: Random("none"), 20, None) as environment:
            return environment.run_block(Still(), np.array(seeds)).to_records()

    first = records(*range(20))
    random.random(), np.random.rand()
    assert records(*range(20)) == first
    assert records(7) == [first[7]], "whichever others run"
    assert len({record["n_steps"] for record in first}) > 3
