"""`il_bench.evaluate` from a training loop, which must not notice."""

import os
import random
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import il_bench
from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import wrap
from il_bench.rollout import blocks, rollout
from tests.rollout.policies import Wander
from tests.small_policies import processors, small_policy, training_batch

STEPS = 3


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_STEPS", STEPS)


def trained(policy_type: str, *, evaluated: bool) -> tuple[Any, ...]:
    """Weights and everything random after four steps of training, evaluated after each or not."""
    policy = small_policy(policy_type)
    pre, post = processors(policy.config)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-3)
    policy.train()
    frozen = next(
        module for module in policy.modules() if isinstance(module, torch.nn.LayerNorm | torch.nn.Mish)
    )
    frozen.eval()  # as LeRobot keeps a vision backbone
    losses = []
    for _ in range(4):
        batch = training_batch(policy.config, n=8, seed=np.random.randint(99))
        if policy_type == "act":  # it sees one step, without a dimension for it
            batch |= {key: value[:, 0] for key, value in batch.items() if key.startswith("observation")}
        loss, _ = policy.forward(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if evaluated:
            il_bench.evaluate(policy, n=2, preprocessor=pre, postprocessor=post)
    modes = [module.training for module in policy.modules()]
    weights = sha256(torch.cat([each.detach().flatten() for each in policy.parameters()]).numpy().tobytes())
    return (
        losses,
        weights.hexdigest(),
        modes,
        sha256(torch.get_rng_state().numpy()).hexdigest(),
        np.random.get_state()[2],
        random.random(),
    )


@pytest.mark.parametrize("policy_type", ["act", "diffusion", "il_vqbet"])
def test_a_training_loop_does_not_notice(policy_type: str) -> None:
    """To the bit: losses, weights, modes of each module, and the random numbers that come next."""
    assert trained(policy_type, evaluated=True) == trained(policy_type, evaluated=False)


def test_it_rolls_out_the_policy_as_it_is_now_on_validation_seeds() -> None:
    policy = small_policy("act")
    parts = processors(policy.config)
    given = dict(zip(("preprocessor", "postprocessor"), parts, strict=True))
    found = il_bench.evaluate(policy, n=3, **given)
    assert found.seeds.tolist() == [100_000, 100_001, 100_002]
    assert found.to_records() == rollout(wrap(policy, *parts, name="x"), range(100_000, 100_003)).to_records()
    with torch.no_grad():
        next(policy.parameters()).add_(1.0)
    assert il_bench.evaluate(policy, seeds=[100_000], **given).to_records() != found.to_records()[:1]
    assert il_bench.evaluate(Wander(), n=1).n == 1, "any object on raw values"


def test_loading_a_checkpoint_uses_up_no_random_number_of_the_caller(checkpoint: Path) -> None:
    before = torch.get_rng_state()
    assert il_bench.evaluate(checkpoint, n=1).n == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_other_processes_get_the_weights_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}

    def instead(source: Any, seeds: Any, **options: Any) -> None:
        found.update(options, source=source)

    monkeypatch.setattr("il_bench.train.evaluation.rollout", instead)
    policy = small_policy("act")
    pre, post = processors(policy.config)
    il_bench.evaluate(policy, n=2, preprocessor=pre, postprocessor=post, workers=2)
    copied = found["source"]()
    assert found["workers"] == 2 and copied.policy is not policy
    assert all(map(torch.equal, copied.policy.parameters(), policy.parameters()))


@pytest.mark.slow
def test_a_side_process_evaluates_while_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the other process knows nothing of short episodes
    policy = small_policy("act").train()
    pre, post = processors(policy.config)
    given = {"preprocessor": pre, "postprocessor": post, "seeds": [100_000]}
    expected = il_bench.evaluate(policy, **given)
    before = torch.get_rng_state()
    future = il_bench.evaluate_beside(policy, **given)
    with torch.no_grad():
        next(policy.parameters()).add_(1.0)
    assert torch.equal(torch.get_rng_state(), before) and policy.training
    assert future.result(timeout=300).to_records() == expected.to_records(), "of the weights as they were"
    with pytest.raises(IlBenchError, match="evaluate_beside: takes no workers"):
        il_bench.evaluate_beside(policy, workers=2, **given)


class Dies(Wander):
    """Takes its process with it, as a lack of memory does."""

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        os._exit(9)


@pytest.mark.slow
def test_a_side_process_that_dies_is_told_in_one_sentence() -> None:
    future = il_bench.evaluate_beside(Dies(), n=1)
    with pytest.raises(IlBenchError, match="evaluate_beside: its process died: too little memory"):
        future.result(timeout=300)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n": 0}, "n=0; need 1 to 1000"),
        ({"n": 3, "seeds": [1]}, "n=3 and seeds together"),
        ({"seeds": [1_000_000]}, "seed 1000000 is reserved"),
        ({"preprocessor": 1}, "processors belong to a LeRobot policy, but this is a Wander"),
        ({"policy": SimpleNamespace(module=1)}, "a SimpleNamespace is not a policy; give a LeRobot policy"),
        ({"policy": "nowhere"}, "nowhere: no such policy"),
        (
            {"workers": 2, "policy": SimpleNamespace(reset=lambda: 0, select_action=lambda _: 0)},
            "cannot be sent",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(IlBenchError, match=said.replace("(", r"\(")):
        il_bench.evaluate(given.pop("policy", Wander()), **given)


def test_a_policy_without_its_processors_is_refused_and_stays_in_training() -> None:
    policy = small_policy("act").train()
    with pytest.raises(IlBenchError, match="ACTPolicy sees what its processors make of raw observations"):
        il_bench.evaluate(policy, n=1)
    assert policy.training
