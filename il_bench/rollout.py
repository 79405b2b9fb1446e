"""Policy x seeds -> episodes, in fixed blocks: the same result whatever the workers, order or selection.

Seeds with the same `seed // BLOCK_SIZE` are one block. A block always runs as one batch of all its seeds,
wanted or not, so that the policy sees the same shapes and draws the same random numbers whichever episodes
were asked for; episodes nobody wanted are dropped. Worlds that are done leave the physics and keep their last
observation.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from il_bench.errors import IlBenchError
from il_bench.pusht.batch import PushTBatch
from il_bench.pusht.simulator import MAX_STEPS, SUCCESS_COVERAGE

BLOCK_SIZE = 50
ACTION_LOW, ACTION_HIGH = 0.0, 512.0


@runtime_checkable
class Policy(Protocol):
    """What can be rolled out: LeRobot's two methods, on raw observations and actions in px."""

    def reset(self) -> None:
        """Forget the last episode."""

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Map `observation.state` (B, 2), `observation.environment_state` (B, 16), float32, to (B, 2) px."""


PolicyLoader = Callable[[], Policy]
_DTYPES = {
    "seeds": np.int64,
    "success": np.bool_,
    "max_reward": np.float64,
    "n_steps": np.int64,
    "outside": np.int64,
}
_RECORD_KEYS = {"seeds": "seed"}


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What N episodes came to, one row an episode, in seed order.

    `seeds` (N,) int64; `success` (N,) bool; `max_reward` (N,) float64, the best reward of the episode, in
    [0, 1]; `n_steps` (N,) int64; `outside` (N,) int64, steps whose action lay outside [0, 512] px; `seconds`,
    wall time.
    """

    seeds: NDArray[np.int64]
    success: NDArray[np.bool_]
    max_reward: NDArray[np.float64]
    n_steps: NDArray[np.int64]
    outside: NDArray[np.int64]
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Give every column its dtype, and raise IlBenchError when one has another length than `seeds`."""
        for name, dtype in _DTYPES.items():
            column: NDArray[Any] = np.asarray(getattr(self, name), dtype)
            if column.ndim != 1 or len(column) != len(self.seeds):
                raise IlBenchError(
                    f"{name} must have shape ({len(self.seeds)},) as seeds, got {column.shape}"
                )
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def n(self) -> int:
        """Number of episodes."""
        return len(self.seeds)

    @property
    def success_rate(self) -> float:
        """Share of episodes that succeed, in [0, 1]; nan without episodes."""
        return float(self.success.mean()) if len(self) else float("nan")

    @property
    def mean_max_reward(self) -> float:
        """Mean over episodes of the best reward, in [0, 1]; nan without episodes."""
        return float(self.max_reward.mean()) if len(self) else float("nan")

    def sorted(self) -> "Outcomes":
        """Return the same episodes in seed order."""
        order = np.argsort(self.seeds, kind="stable")
        return Outcomes(**{name: getattr(self, name)[order] for name in _DTYPES}, seconds=self.seconds)

    @staticmethod
    def concatenate(parts: "Iterable[Outcomes]") -> "Outcomes":
        """Join episodes in seed order; `seconds` add up."""
        parts = list(parts)
        columns = {
            name: np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])
            for name, dtype in _DTYPES.items()
        }
        return Outcomes(**columns, seconds=sum(part.seconds for part in parts)).sorted()

    def to_records(self) -> list[dict[str, Any]]:
        """One dict an episode, of plain Python values: seed, success, max_reward, n_steps, outside."""
        columns = {_RECORD_KEYS.get(name, name): getattr(self, name).tolist() for name in _DTYPES}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    @staticmethod
    def from_records(records: Sequence[Mapping[str, Any]], seconds: float = 0.0) -> "Outcomes":
        """Read what `to_records` wrote.

        Raises:
            IlBenchError: a record lacks a field.
        """
        columns: dict[str, NDArray[Any]] = {}
        for name, dtype in _DTYPES.items():
            key = _RECORD_KEYS.get(name, name)
            missing = next((i for i, record in enumerate(records) if key not in record), None)
            if missing is not None:
                raise IlBenchError(
                    f"episode record {missing} has no field {key!r}; it has {sorted(records[missing])}"
                )
            columns[name] = np.array([record[key] for record in records], dtype)
        return Outcomes(**columns, seconds=seconds)


def rollout(
    policy_or_loader: Policy | PolicyLoader,
    seeds: ArrayLike,
    *,
    workers: int = 1,
    on_block: Callable[[int, int], None] | None = None,
) -> Outcomes:
    """Run one episode of PushT per seed.

    Args:
        policy_or_loader: a policy, which runs in this process; or a callable without arguments that returns
            one, picklable if `workers` > 1: each worker process (spawned) calls it once.
        seeds: distinct integers >= 0, in any order.
        workers: number of processes; 1 is this process itself. The outcomes do not depend on it.
        on_block: called as `on_block(n_done_blocks, n_blocks)` after each block, for progress bars.

    Returns:
        The outcomes in seed order.

    Raises:
        IlBenchError: bad seeds or workers; a policy that raises, or returns the wrong shape or a value that
            is not finite (names seed, step and value); a worker process that died.
    """
    start = time.perf_counter()
    blocks = _blocks(seeds)
    if workers < 1:
        raise IlBenchError(f"workers must be at least 1, got {workers}")
    if isinstance(policy_or_loader, Policy) and not isinstance(policy_or_loader, type):  # a class loads one
        if workers > 1:
            raise IlBenchError(
                f"workers={workers} needs a picklable callable that returns the policy, such as "
                f"PolicyLoader(path), got a policy ({type(policy_or_loader).__name__}); or use workers=1"
            )
        results = _run_inline(policy_or_loader, blocks)
    elif not callable(policy_or_loader):
        raise IlBenchError(
            "expected a policy (reset, select_action) or a callable that returns one, "
            f"got {policy_or_loader!r}"
        )
    elif workers == 1:
        results = _run_inline(policy_or_loader(), blocks)
    else:
        results = _run_in_processes(policy_or_loader, blocks, min(workers, len(blocks)))
    parts: list[Outcomes] = []
    for part in results:
        parts.append(part)
        if on_block is not None:
            on_block(len(parts), len(blocks))
    return replace(Outcomes.concatenate(parts), seconds=time.perf_counter() - start)


def _blocks(seeds: ArrayLike) -> list[NDArray[np.int64]]:
    """Group seeds into blocks: the wanted seeds of each, in seed order."""
    given = np.asarray(seeds)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu" or given.min() < 0:
        raise IlBenchError(f"seeds must be a non-empty list of integers >= 0, got {seeds!r}")
    unique, counts = np.unique(given.astype(np.int64), return_counts=True)
    if len(unique) != len(given):
        raise IlBenchError(f"seeds must be distinct: seed {unique[counts > 1][0]} is there more than once")
    edges = np.flatnonzero(np.diff(unique // BLOCK_SIZE)) + 1
    return np.split(unique, edges)


def _run_inline(policy: Policy, blocks: list[NDArray[np.int64]]) -> Iterator[Outcomes]:
    for wanted in blocks:
        with _one_thread():
            part = run_block(policy, wanted)
        yield part


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums split over another number of threads round differently, so every executor uses one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_worker_loader: PolicyLoader
_worker_policy: Policy | None = None


def _start_worker(loader: PolicyLoader) -> None:
    global _worker_loader
    _worker_loader = loader
    torch.set_num_threads(1)


def _run_block_in_worker(wanted: NDArray[np.int64]) -> Outcomes:
    global _worker_policy
    if _worker_policy is None:  # here and not in _start_worker, whose errors the pool does not pass on
        _worker_policy = _worker_loader()
    return run_block(_worker_policy, wanted)


def _run_in_processes(
    loader: PolicyLoader, blocks: list[NDArray[np.int64]], workers: int
) -> Iterator[Outcomes]:
    # Spawn: a forked child would inherit torch's threads and locks in an undefined state.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (loader,))
    try:
        for future in as_completed([pool.submit(_run_block_in_worker, wanted) for wanted in blocks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise IlBenchError(
            f"one of {workers} worker processes died before it finished its block (killed, out of memory, or "
            "it could not start; scripts need `if __name__ == '__main__':`); try workers=1 to see more"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def run_block(policy: Policy, wanted: NDArray[np.int64]) -> Outcomes:
    """Run one block in this process and return the wanted episodes of it.

    Args:
        policy: the policy; torch's global generators are seeded with the block's first seed, and restored.
        wanted: (n,) distinct seeds in rising order, all of one block.
    """
    start = time.perf_counter()
    first = int(wanted[0]) // BLOCK_SIZE * BLOCK_SIZE
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(first)
        whole = _simulate(policy, np.arange(first, first + BLOCK_SIZE), wanted - first)
    kept = {name: getattr(whole, name)[wanted - first] for name in _DTYPES}
    return Outcomes(**kept, seconds=time.perf_counter() - start)


def _simulate(policy: Policy, seeds: NDArray[np.int64], wanted: NDArray[np.int64]) -> Outcomes:
    """Run a batch until the wanted rows are done; only their rows of the result are whole."""
    worlds = PushTBatch()
    worlds.reset(seeds)
    best = np.zeros(len(seeds))
    n_steps, outside = np.zeros((2, len(seeds)), np.int64)
    active = np.ones(len(seeds), np.bool_)
    _reset(policy, seeds)
    for step in range(MAX_STEPS):
        actions = _actions(policy, worlds, seeds, active, step)
        coverage = worlds.step(actions, active)
        best = np.maximum(best, np.where(active, coverage, 0.0))
        n_steps += active
        outside += active & ((actions < ACTION_LOW) | (actions > ACTION_HIGH)).any(axis=1)
        active &= ~(coverage > SUCCESS_COVERAGE)
        if not active[wanted].any():
            break
    max_reward = np.clip(best / SUCCESS_COVERAGE, 0.0, 1.0)
    return Outcomes(seeds, best > SUCCESS_COVERAGE, max_reward, n_steps, outside)


def _reset(policy: Policy, seeds: NDArray[np.int64]) -> None:
    try:
        policy.reset()
    except Exception as error:
        raise IlBenchError(
            f"policy failed in reset(), seeds {seeds[0]}-{seeds[-1]}: {type(error).__name__}: {error}"
        ) from error


def _actions(
    policy: Policy, worlds: PushTBatch, seeds: NDArray[np.int64], active: NDArray[np.bool_], step: int
) -> NDArray[np.float32]:
    """Ask the policy for actions (B, 2) and check them; they pass unclipped, as in LeRobot."""
    where = f"at seeds {seeds[0]}-{seeds[-1]}, step {step}"
    batch = {key: torch.from_numpy(value) for key, value in worlds.observations().items()}
    try:
        with torch.inference_mode():
            action = policy.select_action(batch)
    except Exception as error:
        raise IlBenchError(f"policy failed {where}: {type(error).__name__}: {error}") from error
    if not isinstance(action, torch.Tensor):
        raise IlBenchError(
            f"policy returned {action!r} {where}, expected a tensor of shape ({len(seeds)}, 2)"
        )
    if action.shape != (len(seeds), 2):
        raise IlBenchError(
            f"policy returned actions of shape {tuple(action.shape)} {where}, expected ({len(seeds)}, 2)"
        )
    actions: NDArray[np.float32] = action.to("cpu", torch.float32).numpy()
    bad = active & ~np.isfinite(actions).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise IlBenchError(
            f"policy returned action {actions[row].tolist()} at seed {seeds[row]}, step {step}; "
            "expected finite numbers"
        )
    return actions
