"""Policies whose networks compute otherwise than they were saved."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from il_bench.machine import Numerics
from il_bench.policies.checkpoint import LoadedPolicy, load_policy
from tests.small_policies import raw_observations


def act(policy: LoadedPolicy) -> torch.Tensor:
    policy.reset()
    return policy.select_action(raw_observations())


def products_of(policy: LoadedPolicy) -> set[torch.dtype]:
    """The types of what linear layers give, in one prediction."""
    found: set[torch.dtype] = set()
    layers = [each for each in policy.policy.modules() if isinstance(each, torch.nn.Linear)]
    hooks = [each.register_forward_hook(lambda _, __, out: found.add(out.dtype)) for each in layers]
    act(policy)
    for hook in hooks:
        hook.remove()
    return found


def test_autocast_changes_products_a_little_and_actions_stay_float32(saved: Path) -> None:
    exact = load_policy(saved)
    cast = load_policy(saved, numerics=Numerics(autocast="bfloat16"))
    copied: LoadedPolicy = pickle.loads(pickle.dumps(cast))  # as workers are sent it
    assert products_of(exact) == {torch.float32}
    assert products_of(cast) == products_of(copied) == {torch.bfloat16}
    assert act(cast).dtype == torch.float32 and torch.equal(act(cast), act(copied))
    difference = (act(cast) - act(exact)).abs().max()
    assert 0 < difference < 10, "px"
    assert not torch.is_autocast_enabled("cpu")


class Compiler:
    """Stands in for torch.compile, which takes a minute; counts what it is given."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, call: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        self.calls.append(options)
        return call


def test_networks_are_compiled_once_a_process_and_no_random_number_is_used_up(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", compiler := Compiler())
    policy = load_policy(saved, numerics=Numerics(compiled=True))
    before = torch.get_rng_state()
    first = act(policy)
    assert torch.equal(torch.get_rng_state(), before)
    n = len(policy.networks(raw_observations()))
    assert n >= 1 and compiler.calls == n * [{"dynamic": False}]
    assert torch.equal(act(policy), first) and len(compiler.calls) == n
    for number, other in enumerate((pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy)), start=2):
        assert torch.equal(act(other), first) and len(compiler.calls) == number * n
    assert torch.equal(first, act(load_policy(saved)))


def test_a_policy_without_a_network_stays_as_it_is() -> None:
    expert = load_policy("expert")
    faster = replace(expert, numerics=Numerics("bfloat16", compiled=True))
    assert faster.networks(raw_observations()) == [] and torch.equal(act(faster), act(expert))
