from typing import Any

import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.latency import calls
from il_bench.latency.calls import policy_call
from il_bench.policies.checkpoint import LoadedPolicy, load_policy
from il_bench.protocol import TimedCall

from .fakes import made

NEW_CHUNK, QUEUED_ACTION, PREDICT, CONTROL_STEP = TimedCall


@pytest.fixture
def predictions(policy: LoadedPolicy, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of the predictions the policy's network has made."""
    sizes: list[int] = []
    forward = policy.policy.model.forward

    def counted(batch: dict[str, torch.Tensor]) -> Any:
        sizes.append(len(batch["observation.state"]))
        return forward(batch)

    monkeypatch.setattr(policy.policy.model, "forward", counted)
    return sizes


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
    ("what", "predicts", "steps"),
    [(NEW_CHUNK, 1, 1), (QUEUED_ACTION, 0, 1), (PREDICT, 1, 1), (CONTROL_STEP, 1, 8)],
)
def test_a_call_predicts_the_whole_batch_or_does_not(
    policy: LoadedPolicy, predictions: list[int], what: str, predicts: int, steps: int, processed: bool
) -> None:
    """20 calls are more than the 8 actions of a chunk, so the queue runs empty in between."""
    call = policy_call(policy, what, 3, processed=processed)
    assert run(call, 20, predictions) == [predicts] * 20
    assert set(predictions) == {3}
    assert call.steps == steps


@pytest.mark.parametrize(
    ("what", "shape"), [(NEW_CHUNK, (2, 2)), (QUEUED_ACTION, (2, 2)), (PREDICT, (2, 8, 2))]
)
def test_with_processing_actions_are_px_on_the_cpu(
    policy: LoadedPolicy, what: str, shape: tuple[int, ...]
) -> None:
    """The checkpoint's statistics are mean 256, deviation 100, so that the two differ by that."""
    px, bare = (made(policy_call(policy, what, 2, processed=each)) for each in (True, False))
    assert px.shape == bare.shape == shape
    assert torch.allclose(px, bare * 100 + 256, atol=1e-3)


@pytest.mark.parametrize("name", ["bc", "bet", "vqbet", "diffusion"])
def test_policies_that_look_back_are_given_a_history(name: str) -> None:
    policy = load_policy(name)
    queues = policy.policy.config.n_action_steps > 1
    for what in TimedCall:
        if what == QUEUED_ACTION and not queues:
            continue
        given = made(policy_call(policy, what, 2))
        assert torch.isfinite(torch.stack(given) if what == CONTROL_STEP else given).all()


def test_filling_the_queue_leaves_the_policy_as_it_was(policy: LoadedPolicy) -> None:
    before = set(vars(policy.policy))
    call = policy_call(policy, QUEUED_ACTION, 1)
    for _ in range(9):
        made(call)
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
    assert made(policy_call(expert, NEW_CHUNK, 1)).shape == (1, 2)


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
