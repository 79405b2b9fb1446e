"""Policy x seeds -> episodes, in fixed blocks: the same result whatever the workers, order or selection.

Seeds with the same `seed // BLOCK_SIZE` are one block, or `seed // IMAGE_BLOCK_SIZE` for a policy on images.
A block always runs as one batch of all its seeds, so that the policy sees the same shapes and draws the same
random numbers whichever episodes were asked for; the others are dropped. Worlds that are done leave the
physics and keep their last observation.

Blocks finish in any order and are consumed in seed order, a policy's errors too. So a rollout that stops
early stops at the same block whatever the number of workers. Only a block that kills its worker three times
ends a rollout at once.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from il_bench.errors import IlBenchError, described
from il_bench.protocol import (
    ACTION_HIGH,
    ACTION_LOW,
    BLOCK_SIZE,
    IMAGE_BLOCK_SIZE,
    MAX_STEPS,
    RESERVED_SEEDS,
    SUCCESS_COVERAGE,
    ExecutorName,
)
from il_bench.pusht.batch import PushTBatch
from il_bench.rollout import executors
from il_bench.rollout.endings import reward
from il_bench.rollout.executors import Executor, Job
from il_bench.rollout.given import checked
from il_bench.rollout.journal import Journal
from il_bench.rollout.outcomes import Outcomes
from il_bench.rollout.progress import Step, tell
from il_bench.rollout.recording import StepRecorder, StepRecording
from il_bench.rollout.surroundings import of_block, undisturbed


@runtime_checkable
class Policy(Protocol):
    """What can be rolled out: an object with LeRobot's two methods, on raw observations and actions in px.

    A policy with an attribute `camera`, a `il_bench.pusht.Camera`, sees an image instead of the keypoints.
    With a method `rolling_out`, every block runs in the context that it gives.
    """

    def reset(self) -> None:
        """Forget the last episode."""

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Map what `PushTBatch.observations` gives, as tensors, to actions (B, 2) px."""


PolicyLoader = Callable[[], Policy]
#: Runs the wanted seeds of one block in this process.
RunBlock = Callable[[Policy, NDArray[np.int64]], Outcomes]
#: Given all episodes so far, in seed order: whether they are enough.
Stop = Callable[[Outcomes], bool]


def rollout(
    policy_or_loader: Policy | PolicyLoader,
    seeds: ArrayLike,
    *,
    workers: int = 1,
    executor: str | Executor | None = None,
    size: int | None = None,
    timeout: float | None = None,
    on_block: Callable[[int, int], None] | None = None,
    journal: Journal | None = None,
    stop: Stop | None = None,
    block: RunBlock | None = None,
    record: Callable[[Outcomes], object] | None = None,
) -> Outcomes:
    """Run one episode of PushT for each seed, or fewer: until `stop` says that they are enough.

    Args:
        policy_or_loader: a policy, of which other processes get copies if it has a method `copies`; or a
            callable without arguments that returns one, picklable if `workers` > 1: each worker process, a
            new one, calls it once.
        seeds: distinct integers >= 0, in any order.
        workers: number of processes; 1 is this process itself. The outcomes do not depend on it.
        executor: one of `executors.EXECUTORS` by name, or an executor; None: the one that `workers` implies.
        size: how many seeds are handed out at once: BLOCK_SIZE or `size_of` the policy, which is the default
            where a policy is given. The outcomes do not depend on it.
        timeout: seconds that a block may take in a worker process; None: for ever.
        on_block: called as `on_block(n_done_blocks, n_blocks)` after each block; with `stop`, blocks that are
            done ahead of their turn do not count yet.
        journal: this policy's, open: blocks it holds are not run, and finished blocks are added to it, also
            when a later one fails. The outcomes do not depend on it.
        stop: asked after every block, in seed order; once it says yes, the other blocks are not run.
        block: runs a block, picklable if `workers` > 1; None: `run_block`, PushT.
        record: given every block that has been run, with its recording, before the journal gets it.

    Returns the outcomes in seed order; their `seconds` include those that blocks from the journal once took.
    Raises IlBenchError for bad seeds or workers; for a policy that raises, or returns the wrong shape or a
    value that is not finite (names seed, step and value); for a block that took longer than `timeout` or
    killed its worker three times.
    """
    start = time.perf_counter()
    load = _loader(policy_or_loader, workers, executor)
    if size is None:
        size = size_of(policy_or_loader) if block is None else BLOCK_SIZE
    blocks = _blocks(seeds, size)
    queue = _Queue([int(wanted[0]) for wanted in blocks], stop)

    def done(first: int, result: Outcomes | IlBenchError) -> None:
        queue.take(first, result)
        if on_block is not None:
            on_block(queue.n_finished if stop is None else len(queue.consumed), len(blocks))

    missing, recalled = [], set[int]()
    for wanted in blocks:
        known = journal.recall(wanted) if journal is not None else None
        if known is None:
            missing.append(wanted)
        elif not queue.stopped:
            recalled.add(int(wanted[0]))
            done(int(wanted[0]), known)
    if not queue.stopped:
        runner = executors.choose(workers, len(missing), executor, timeout)
        attempt = partial(_attempt, block=block)
        # Closing ends the workers at once, also when an error or Ctrl-C gets in between two blocks.
        results = runner.run(Job(load, attempt, missing, _name))
        with undisturbed(called(policy_or_loader)), closing(results):
            for first, result in results:
                if isinstance(result, Outcomes):
                    if record is not None:
                        record(result)
                    result = replace(result, recording=None)
                    if journal is not None:
                        journal.append(result)
                done(first, result)
                if queue.stopped:
                    break
    before = sum(part.seconds for part in queue.consumed if int(part.seeds[0]) in recalled)
    return replace(Outcomes.concatenate(queue.consumed), seconds=before + time.perf_counter() - start)


class _Queue:
    """Takes blocks as they finish, and consumes them in seed order until `stop` says that they are enough.

    order: the first wanted seed of every block.
    """

    def __init__(self, order: list[int], stop: Stop | None) -> None:
        self._order, self._stop = order, stop
        self._waiting: dict[int, Outcomes | IlBenchError] = {}
        self.consumed: list[Outcomes] = []
        self.n_finished = 0
        self.stopped = False

    def take(self, first: int, result: Outcomes | IlBenchError) -> None:
        """Add a finished block; a block that ended with an error raises it when its turn comes."""
        self._waiting[first] = result
        self.n_finished += 1
        while not self.stopped and len(self.consumed) < len(self._order):
            part = self._waiting.pop(self._order[len(self.consumed)], None)
            if part is None:
                return
            if isinstance(part, IlBenchError):
                raise part
            self.consumed.append(part)
            self.stopped = self._stop is not None and self._stop(Outcomes.concatenate(self.consumed))


def _loader(
    policy_or_loader: Policy | PolicyLoader, workers: int, executor: str | Executor | None
) -> PolicyLoader:
    """Check the arguments, and return a loader of the policy."""
    if workers < 1:
        raise IlBenchError(f"workers must be at least 1, got {workers}")
    if isinstance(policy_or_loader, Policy) and not isinstance(policy_or_loader, type):  # a class loads one
        policy = policy_or_loader
        if workers == 1 and executor in (None, ExecutorName.INLINE):
            return lambda: policy
        copies: PolicyLoader | None = getattr(policy, "copies", lambda: None)()
        if copies is None:
            who = f"workers={workers}" if workers > 1 else "another process"
            raise IlBenchError(
                f"{who} needs a picklable callable that returns the policy, such as partial(load_policy, path"
                f"), got a policy ({type(policy).__name__}); or use workers=1"
            )
        return copies
    if not callable(policy_or_loader):
        raise IlBenchError(
            "expected a policy (reset, select_action) or a callable that returns one, "
            f"got {policy_or_loader!r}"
        )
    return policy_or_loader


def called(policy_or_loader: Policy | PolicyLoader) -> str:
    """What a warning calls the policy."""
    if not isinstance(policy_or_loader, Policy):
        return "the policy"
    return f"policy {getattr(policy_or_loader, 'name', None) or type(policy_or_loader).__name__}"


def _attempt(
    policy: Policy, wanted: NDArray[np.int64], block: RunBlock | None
) -> tuple[int, Outcomes | IlBenchError]:
    """Return the first wanted seed, and the block's episodes or the error that it ended with.

    The error is returned, not raised: it counts only if no earlier block ends the rollout.
    """
    try:
        return int(wanted[0]), (block or run_block)(policy, wanted)
    except IlBenchError as error:
        return int(wanted[0]), error


def _name(wanted: NDArray[np.int64]) -> str:
    return f"seeds {wanted[0]}-{wanted[-1]}"


def size_of(policy: object) -> int:
    """How many seeds a block of this policy has: fewer if it sees images."""
    return BLOCK_SIZE if getattr(policy, "camera", None) is None else IMAGE_BLOCK_SIZE


def unreserved(seeds: Iterable[int], who: str) -> NDArray[Any]:
    """Return the seeds that somebody gives to `who`; IlBenchError for those that nothing here ever sees."""
    chosen = np.asarray(list(seeds))
    if chosen.dtype.kind in "iu" and chosen.size and chosen.max() >= RESERVED_SEEDS:
        raise IlBenchError(
            f"{who}: seed {chosen.max()} is reserved for a third evaluation; use seeds below {RESERVED_SEEDS}"
        )
    return chosen


def _blocks(seeds: ArrayLike, size: int) -> list[NDArray[np.int64]]:
    """Group seeds into blocks of this size: the wanted seeds of each, in seed order."""
    given = np.asarray(seeds)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu" or given.min() < 0:
        raise IlBenchError(f"seeds must be a non-empty list of integers >= 0, got {seeds!r}")
    unique, counts = np.unique(given.astype(np.int64), return_counts=True)
    if (counts > 1).any():
        raise IlBenchError(f"seeds must be distinct: seed {unique[counts > 1][0]} occurs more than once")
    return np.split(unique, np.flatnonzero(np.diff(unique // size)) + 1)


def run_block(
    policy: Policy, wanted: NDArray[np.int64], worlds: Callable[[], PushTBatch] | None = None
) -> Outcomes:
    """Run one block in this process, torch on one thread, and return its wanted episodes.

    The global generators of torch, numpy and `random` are seeded with the block's first seed, and put back.
    wanted: (n,) distinct seeds in rising order, all of one block, or of several, which then run one after the
    other. worlds: makes the worlds; None: PushT's.
    """
    start, size = time.perf_counter(), size_of(policy)
    parts = []
    for each in _blocks(wanted, size):
        first = int(each[0]) // size * size
        rolling_out = getattr(policy, "rolling_out", nullcontext)
        with of_block(first, called(policy)), rolling_out():
            whole = _simulate(policy, np.arange(first, first + size), each - first, (worlds or PushTBatch)())
        parts.append(whole.take(each - first))
    recordings = [part.recording for part in parts if part.recording is not None]
    return replace(
        Outcomes.concatenate(parts),
        seconds=time.perf_counter() - start,
        recording=StepRecording.concatenate(recordings) if recordings else None,
    )


def _simulate(
    policy: Policy, seeds: NDArray[np.int64], wanted: NDArray[np.int64], worlds: PushTBatch
) -> Outcomes:
    """Run a batch until the wanted rows are done; only the wanted rows of the result are complete."""
    worlds.reset(seeds)
    recorder = StepRecorder(worlds, MAX_STEPS)
    n_steps, outside = np.zeros((2, len(seeds)), np.int64)
    active = np.ones(len(seeds), np.bool_)
    try:
        policy.reset()
    except Exception as error:
        raise IlBenchError(f"policy failed in reset(), {_name(seeds)}: {described(error)}") from error
    for step in range(MAX_STEPS):
        actions = _actions(policy, worlds, seeds, active, step)
        coverage = worlds.step(actions, active)
        n_steps += active
        recorder.add(actions)
        outside += active & ((actions < ACTION_LOW) | (actions > ACTION_HIGH)).any(axis=1)
        active &= ~(coverage > SUCCESS_COVERAGE)
        tell(Step(int(seeds[wanted[0]]), int(seeds[wanted[-1]]), step + 1, MAX_STEPS))
        if not active[wanted].any():
            break
    counted: dict[str, Any] = recorder.counted(n_steps)
    best = counted["best_coverage"]
    return Outcomes(
        seeds,
        best > SUCCESS_COVERAGE,
        reward(best),
        n_steps,
        outside,
        **counted,
        recording=recorder.recording(seeds, n_steps),
    )


def _actions(
    policy: Policy, worlds: PushTBatch, seeds: NDArray[np.int64], active: NDArray[np.bool_], step: int
) -> NDArray[np.float32]:
    """Ask the policy for actions (B, 2) and check them; they pass unclipped, as in LeRobot."""
    where = f"at {_name(seeds)}, step {step}"
    seen = worlds.observations(getattr(policy, "camera", None))
    batch = {key: torch.from_numpy(value) for key, value in seen.items()}
    try:
        with torch.inference_mode():
            action = policy.select_action(batch)
    except Exception as error:
        raise IlBenchError(f"policy failed {where}: {described(error)}") from error
    actions: NDArray[np.float32] = checked(action, (len(seeds), 2), where).to(torch.float32).numpy()
    bad = active & ~np.isfinite(actions).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        at = f"at seed {seeds[row]}, step {step}"
        raise IlBenchError(f"policy returned action {actions[row].tolist()} {at}; expected finite numbers")
    return actions
