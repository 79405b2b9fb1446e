from pathlib import Path
from typing import Any

import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.latency import calls
from il_bench.latency.calls import policy_call
from il_bench.policies.checkpoint import LoadedPolicy, load_policy
from il_bench.protocol import TimedCall

NEW_CHUNK, QUEUED_ACTION, PREDICT, CONTROL_STEP = TimedCall


@pytest.fixture
def policy(checkpoint: Path) -> LoadedPolicy:
    return load_policy(checkpoint)


@pytest.fixture
def predictions(policy: LoadedPolicy, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of the predictions the policy's network has made."""
    made: list[int] = []
    forward = policy.policy.model.forward

    def counted(batch: dict[str, torch.Tensor]) -> Any:
        made.append(len(batch["observation.state"]))
        return forward(batch)

    monkeypatch.setattr(policy.policy.model, "forward", counted)
    return made


def run(call: calls.PolicyCall, times: int, predictions: list[int]) -> list[int]:
    """How many predictions each timed call made."""
    counts = []
    for _ in range(times):
        call.prepare()
        before = len(predictions)
        call.call()
        counts.append(len(predictions) - before)
    return counts


@pytest.mark.parametrize("processed", [True, False])
@pytest.mark.parametrize(
    ("what", "made"), [(NEW_CHUNK, [1] * 20), (QUEUED_ACTION, [0] * 20), (PREDICT, [1] * 20)]
)
def test_a_call_predicts_or_does_not(
    policy: LoadedPolicy, predictions: list[int], what: str, made: list[int], processed: bool
) -> None:
    """20 calls are more than the 8 actions of a chunk, so the queue runs empty in between."""
    assert run(policy_call(policy, what, 3, processed=processed), 20, predictions) == made


@pytest.mark.parametrize("processed", [True, False])
def test_a_control_step_is_one_prediction_and_all_its_actions(
    policy: LoadedPolicy, predictions: list[int], processed: bool
) -> None:
    call = policy_call(policy, CONTROL_STEP, 3, processed=processed)
    assert call.steps == policy.policy.config.n_action_steps == 8
    assert run(call, 3, predictions) == [1, 1, 1]


def test_every_prediction_is_of_the_whole_batch(policy: LoadedPolicy, predictions: list[int]) -> None:
    for what in TimedCall:
        run(policy_call(policy, what, 5), 2, predictions)
    assert set(predictions) == {5}


@pytest.mark.parametrize("what", [NEW_CHUNK, QUEUED_ACTION])
def test_with_processing_actions_are_px_on_the_cpu(policy: LoadedPolicy, what: str) -> None:
    """The checkpoint's statistics are mean 256, deviation 100, so that the two differ by that."""
    given = []
    for processed in (True, False):
        call = policy_call(policy, what, 2, processed=processed)
        call.prepare()
        given.append(call.call())
    assert given[0].shape == given[1].shape == (2, 2)
    assert torch.allclose(given[0], given[1] * 100 + 256, atol=1e-3)


def test_predictions_are_whole_chunks(policy: LoadedPolicy) -> None:
    px, bare = (policy_call(policy, PREDICT, 2, processed=each) for each in (True, False))
    assert px.call().shape == (2, 8, 2)
    assert torch.allclose(px.call(), bare.call() * 100 + 256, atol=1e-3)


@pytest.mark.parametrize("name", ["bc", "bet", "vqbet", "diffusion"])
def test_policies_that_look_back_are_given_a_history(name: str) -> None:
    policy = load_policy(name)
    queues = policy.policy.config.n_action_steps > 1
    for what in TimedCall:
        if what == QUEUED_ACTION and not queues:
            continue
        call = policy_call(policy, what, 2)
        call.prepare()
        given = call.call()
        assert torch.isfinite(torch.stack(given) if what == CONTROL_STEP else given).all()


def test_filling_the_queue_leaves_the_policy_as_it_was(policy: LoadedPolicy) -> None:
    before = set(vars(policy.policy))
    call = policy_call(policy, QUEUED_ACTION, 1)
    for _ in range(9):
        call.prepare()
        call.call()
    assert set(vars(policy.policy)) == before


def test_a_policy_that_queues_nothing_says_so(policy: LoadedPolicy) -> None:
    policy.policy.config.n_action_steps = 1
    with pytest.raises(calls.NoSuchCallError, match="n_action_steps is 1"):
        policy_call(policy, QUEUED_ACTION, 1)
    assert policy_call(policy, CONTROL_STEP, 1).steps == 1


def test_the_planner_has_no_chunks() -> None:
    expert = load_policy("expert")
    with pytest.raises(calls.NoSuchCallError, match="no predict_action_chunk"):
        policy_call(expert, PREDICT, 1)
    call = policy_call(expert, NEW_CHUNK, 1)
    call.prepare()
    assert call.call().shape == (1, 2)


@pytest.mark.parametrize(
    ("what", "batch", "mode", "named"),
    [
        ("chunk", 1, "eager", "'chunk'.*new chunk"),
        (NEW_CHUNK, 0, "eager", "batch 0"),
        (NEW_CHUNK, 1, "fast", "'fast'.*eager, compile"),
        (NEW_CHUNK, 1, "cuda graph", "cpu has no graphs"),
    ],
)
def test_what_cannot_be_timed_is_named(
    policy: LoadedPolicy, what: str, batch: int, mode: str, named: str
) -> None:
    with pytest.raises(IlBenchError, match=named):
        policy_call(policy, what, batch, mode=mode)
