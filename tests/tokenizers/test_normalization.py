"""Normalising and unnormalising actions, as the policies' processors do, undo each other."""

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import EPS
from strategies import examples

from tests import small_policies

F32 = EPS[torch.float32]


def processors(low: Any, high: Any) -> tuple[Any, Any]:
    """il_vqbet's pair for actions from ``low`` to ``high`` (2,)."""
    action = {"min": torch.tensor(low), "max": torch.tensor(high)}
    return small_policies.processors(
        small_policies.small_config("il_vqbet"), {**small_policies.statistics(), "action": action}
    )


def normalised(pair: tuple[Any, Any], actions: torch.Tensor) -> torch.Tensor:
    batch = {
        "action": actions,
        "observation.state": torch.zeros(len(actions), 2),
        "observation.environment_state": torch.zeros(len(actions), 16),
    }
    return pair[0](batch)["action"]


@examples(15)
@given(data=st.data())
def test_unnormalising_undoes_normalising(data: st.DataObject) -> None:
    low = data.draw(arrays(np.float32, 2, elements=st.floats(-512, 512, width=32)))
    span = data.draw(arrays(np.float32, 2, elements=st.floats(2**-10, 1024, width=32)))
    pair = processors(low, low + span)
    share = torch.from_numpy(data.draw(arrays(np.float32, (5, 3, 2), elements=st.floats(0, 1, width=32))))
    actions = torch.from_numpy(low) + share * torch.from_numpy(span)
    small = normalised(pair, actions)
    assert small.min() >= -1 - 1e-3 and small.max() <= 1 + 1e-3
    back = pair[1](small)
    size = np.abs(low) + span
    assert (np.abs(oracles.array(back) - oracles.array(actions)) <= 8 * F32 * size).all()


@examples(10)
@given(small=arrays(np.float32, (4, 3, 2), elements=st.floats(-1, 1, width=32)))
def test_normalising_undoes_unnormalising(small: Any) -> None:
    pair = processors(np.float32([0, 100]), np.float32([512, 400]))
    again = normalised(pair, pair[1](torch.from_numpy(small)))
    assert np.abs(again.numpy() - small).max() <= 16 * F32 * 4  # of up to 400 in a range of 300


def test_normalising_by_hand() -> None:
    pair = processors(np.float32([0, 100]), np.float32([512, 400]))
    actions = torch.tensor([[[0.0, 100.0], [512.0, 400.0], [256.0, 175.0]]])
    assert normalised(pair, actions).tolist() == [[[-1.0, -1.0], [1.0, 1.0], [0.0, -0.5]]]
    assert pair[1](torch.tensor([[[0.5, 0.0], [-1.0, 1.0]]])).tolist() == [[[384.0, 250.0], [0.0, 400.0]]]


@pytest.mark.parametrize("value", [0.0, 3.25, -100.0])
def test_an_action_that_never_changes_comes_back(value: float) -> None:
    pair = processors(np.float32([value, 0]), np.float32([value, 1]))
    actions = torch.tensor([[[value, 0.5]]])
    assert pair[1](normalised(pair, actions)).tolist() == actions.tolist()
