"""How good a policy is while it trains: `il_bench.evaluate`, called from any training loop."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from numpy.typing import NDArray

from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import LoadedPolicy, load_policy, wrap
from il_bench.protocol import DEFAULT_EPISODES, MAX_EPISODES, SEED_STARTS
from il_bench.rollout import Outcomes, Policy, rollout
from il_bench.rollout.blocks import size_of, unreserved
from il_bench.rollout.executors import starting
from il_bench.rollout.surroundings import seeded, undisturbed

_NAME = "in training"


def evaluate(
    policy: Any,
    n: int | None = None,
    *,
    preprocessor: Any = None,
    postprocessor: Any = None,
    seeds: Iterable[int] | None = None,
    device: str = "cpu",
    workers: int = 1,
    executor: str | None = None,
) -> Outcomes:
    """Roll a policy out in PushT as it is now, and return its episodes in seed order.

    The caller's state stays as it is: the random numbers of torch, numpy and `random`, the settings of torch,
    and whether each module of the policy is in training or in evaluation mode. A queue of actions is emptied.

    Args:
        policy: a LeRobot policy in memory, with the `preprocessor` and the `postprocessor` that it trains
            with; a shipped name, a folder or a Hub id, loaded on `device`; or any object with LeRobot's
            `reset()` and `select_action(batch)` on raw observations and px.
        n: run the first n validation seeds, at most 1,000. Default: 200.
        seeds: run these instead.
        workers: processes. 1: this one. More get a copy of the weights and run beside each other; the
            outcomes are the same.
        executor: where the episodes run, by a name of `il_bench.rollout.executors.EXECUTORS`; None: as
            `workers` implies.

    Raises IlBenchError for what is not a policy, for seeds out of range, and for a policy that fails.
    """
    chosen = _seeds(n, seeds)
    with _untouched(policy):
        loaded = _loaded(policy, preprocessor, postprocessor, device)
        leaves = workers > 1 or executor not in (None, "inline")
        source = partial(pickle.loads, _copied(loaded)) if leaves else loaded
        return rollout(source, chosen, workers=workers, executor=executor, size=size_of(loaded))


def evaluate_beside(policy: Any, n: int | None = None, **options: Any) -> "Future[Outcomes]":
    """Begin an evaluation in a process of its own, and return at once: training goes on meanwhile.

    It is of the weights as they are now. `result()` of what is returned waits for the outcomes. The
    arguments are those of `evaluate`, without `workers` and `executor`; the errors come from `result()`.
    """
    before, after = (options.pop(name, None) for name in ("preprocessor", "postprocessor"))
    chosen, device = _seeds(n, options.pop("seeds", None)), options.pop("device", "cpu")
    if options:
        raise IlBenchError(
            f"evaluate_beside: takes no {next(iter(options))}; its episodes run in one process"
        )
    with _untouched(policy):
        copy = _copied(_loaded(policy, before, after, device))
    pool = ProcessPoolExecutor(1, mp_context=starting.context())
    found: Future[Outcomes] = Future()
    found.set_running_or_notify_cancel()
    pool.submit(_roll_out, copy, chosen).add_done_callback(partial(_hand_on, found))
    pool.shutdown(wait=False)  # it ends with its only task
    return found


def _hand_on(found: "Future[Outcomes]", done: "Future[Outcomes]") -> None:
    """Give `found` what the process gave; one that died is told in a sentence."""
    error = done.exception()
    if isinstance(error, BrokenProcessPool):
        error = IlBenchError(
            "evaluate_beside: its process died: too little memory, a crash in a library, or a script that"
            " does not keep what it runs below `if __name__ == '__main__':`"
        )
    if error is None:
        found.set_result(done.result())
    else:
        found.set_exception(error)


def _roll_out(copy: bytes, seeds: NDArray[np.int64]) -> Outcomes:
    loaded = pickle.loads(copy)
    return rollout(loaded, seeds, size=size_of(loaded))


def _loaded(policy: Any, preprocessor: Any, postprocessor: Any, device: str) -> Any:
    """The policy, ready for raw observations; IlBenchError if it is none."""
    if isinstance(policy, str | Path):
        return load_policy(policy, device=device)
    if isinstance(policy, PreTrainedPolicy):
        if preprocessor is None or postprocessor is None:
            raise IlBenchError(
                f"evaluate: {type(policy).__name__} sees what its processors make of raw observations; give"
                " the preprocessor and the postprocessor that it trains with"
            )
        return wrap(policy, preprocessor, postprocessor, name=_NAME)
    if preprocessor is not None or postprocessor is not None:
        raise IlBenchError(
            f"evaluate: processors belong to a LeRobot policy, but this is a {type(policy).__name__}; what"
            " wraps one, as for several GPUs, holds it (accelerator.unwrap_model(policy))"
        )
    if not isinstance(policy, Policy):
        raise IlBenchError(
            f"evaluate: a {type(policy).__name__} is not a policy; give a LeRobot policy with its "
            "processors, a"
            " name, a folder, a Hub id, or an object with reset() and select_action(batch)"
        )
    return policy


def _copied(loaded: Any) -> bytes:
    try:
        return pickle.dumps(loaded)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        name = loaded.name if isinstance(loaded, LoadedPolicy) else type(loaded).__name__
        raise IlBenchError(
            f"evaluate: {name} cannot be sent to another process ({error}); evaluate it in this one"
        ) from None


@contextmanager
def _untouched(policy: Any) -> Iterator[None]:
    """Put back afterwards what a rollout changes: random numbers, settings, and the modes of all modules."""
    modules = list(policy.modules()) if isinstance(policy, torch.nn.Module) else []
    modes = [module.training for module in modules]
    reset: Callable[[], object] = getattr(policy, "reset", lambda: None)
    with undisturbed("the policy in training"), seeded(0):
        try:
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            if modules:
                reset()  # queues hold what a rollout saw last


def _seeds(n: int | None, seeds: Iterable[int] | None) -> NDArray[np.int64]:
    if seeds is not None:
        if n is not None:
            raise IlBenchError(f"evaluate: n={n} and seeds together; give one of them")
        return unreserved(seeds, "evaluate")
    n = DEFAULT_EPISODES if n is None else n
    if not 1 <= n <= MAX_EPISODES:
        raise IlBenchError(f"evaluate: n={n}; need 1 to {MAX_EPISODES}, the number of validation seeds")
    return SEED_STARTS["validation"] + np.arange(n)
