"""The work that test_throughput.py times, on one thread as in rollouts, in turns with reference and floor."""

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor, nn
from torch.utils.data import default_collate

from il_bench.data import Windows
from il_bench.data.chunks import Chunks
from il_bench.latency.calls import actions_per_prediction, observations
from il_bench.latency.device import device_for, inference_on_one_thread
from il_bench.latency.turns import Call, Clock, TimedBeside, Turns
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.report.rows import PRODUCTS, Throughput
from il_bench.suite.reconstruction import FittedTokenizer
from il_bench.tokenizers import ResidualVQTokenizer, Tokenizer
from il_bench.train.batches import BATCH_KEYS, delta_timestamps

MOST_ROUNDS, FEWEST_ROUNDS = 100, 5
WARM_UP = 3  # rounds
WARM_BELOW = 1024  # caches do not matter to a larger batch
MOST_SAMPLES = 64  # from LeRobot's dataset at once: each takes 2 ms
LEROBOT = {"encode": "LeRobot's get_code", "decode": "LeRobot's decode"}


@dataclass(frozen=True, eq=False)
class Counterpart:
    """What some work is compared with: a call that does `n` of the same things."""

    name: str
    call: Call
    n: int


@dataclass(frozen=True, eq=False)
class Work:
    """A call that does `n` of something, and what is timed in turns with it.

    reference: another way to do the same. floor: only the work that hardly any implementation can leave out.
    device: where it runs, if not on --il-device.
    """

    call: Call
    n: int
    reference: Counterpart | None = None
    floor: Counterpart | None = None
    device: str | None = None


def throughput(
    what: str, work: Work, batch: int, *, seconds: float, device: str, benchmark: Any
) -> Throughput:
    """Time some work for about so many seconds with pytest-benchmark's fixture; return its row."""
    where = device_for(work.device or device)
    clock = benchmark._timer  # --benchmark-timer
    call = where.waited_for(work.call)
    beside = {
        each: TimedBeside(where.waited_for(each.call), where, clock)
        for each in (work.reference, work.floor)
        if each is not None
    }
    with inference_on_one_thread():
        rounds = _rounds([*(each.call for each in beside.values()), call], seconds, clock)
        turns = Turns(call, list(beside.values()), cold_below=math.inf if batch < WARM_BELOW else 0.0)
        benchmark.pedantic(call, setup=turns, rounds=rounds)
        held = where.call_memory_mb(call)
    per_second = work.n / benchmark.stats.stats.median

    def ratio(to: Counterpart | None) -> float | None:
        return None if to is None else per_second / (to.n / statistics.median(beside[to].seconds))

    return Throughput(
        what=what,
        batch=batch,
        device=where.name,
        per_second=per_second,
        ratio_to_reference=ratio(work.reference),
        reference=work.reference.name if work.reference else None,
        ratio_to_floor=ratio(work.floor),
        floor=work.floor.name if work.floor else None,
        peak_memory_mb=held,
    )


def _rounds(calls: Sequence[Call], seconds: float, clock: Clock) -> int:
    """Warm `calls` up; return how many rounds of them take about `seconds`."""
    taken: list[float] = []
    for call in calls:
        call()
    while len(taken) < WARM_UP and sum(taken) < seconds:
        start = clock()
        for call in calls:
            call()
        taken.append(clock() - start)
    return max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(seconds / min(taken))))


def acting(policy: LoadedPolicy, batch: int) -> Work:
    """Take all actions of one prediction, for a batch."""
    n_steps = actions_per_prediction(policy)
    seen = observations(batch, policy.camera)
    policy.reset()

    def act() -> None:
        for _ in range(n_steps):
            policy.select_action(seen)

    return Work(act, n_steps * batch)


def tokenizing(subject: FittedTokenizer, seen: Chunks, way: str, batch: int, device: str) -> Work:
    """Encode or decode (`way`) a batch of the chunks `seen`, in random order, on the device.

    A residual VQ's reference is LeRobot's own code on the same weights. The floor is the network's matrix
    products, if it has one; code that folds layers together, or looks results up in a table, can be faster.
    """
    tokenizer = copy.deepcopy(subject.tokenizer).to(device)
    order = torch.randperm(len(seen.frames), generator=torch.Generator().manual_seed(0))
    rows = order.repeat(-(-batch // len(order)))[:batch]
    chunks = subject.coordinates.chunks(seen).to(device)[rows.to(device)]
    given = chunks if way == "encode" else tokenizer.encode(chunks)
    work: Callable[[Tensor], Tensor] = getattr(tokenizer, way)
    reference = None
    if isinstance(tokenizer, ResidualVQTokenizer):
        theirs = getattr(tokenizer, f"reference_{way}")
        reference = Counterpart(LEROBOT[way], lambda: theirs(given), batch)
    return Work(lambda: work(given), batch, reference, _products(tokenizer, way, batch))


def _products(tokenizer: Tokenizer, way: str, batch: int) -> Counterpart | None:
    """The matrix products of a tokenizer's encoder or decoder alone; None if it has no network."""
    owner = tokenizer.vqvae if isinstance(tokenizer, ResidualVQTokenizer) else tokenizer
    network = getattr(owner, f"{way}r", None)
    if not isinstance(network, nn.Module):
        return None
    weights = [layer.weight.detach().T for layer in network.modules() if isinstance(layer, nn.Linear)]
    given = torch.ones(batch, len(weights[0])).to(weights[0])

    def multiply() -> Tensor:
        found = given
        for weight in weights:
            found = found @ weight
        return found

    return Counterpart(PRODUCTS, multiply, batch)


def windowing(policy: LoadedPolicy, dataset: LeRobotDataset, batch: int) -> Work:
    """Gather a batch of a policy's training windows, on the CPU.

    The reference is LeRobot's dataset, collated. The floor is indexing as many rows in random order.
    """
    deltas = delta_timestamps(policy.policy.config, dataset.fps)
    windows = Windows(dataset, deltas)
    frames = _spread(len(windows), batch)
    few = _spread(len(windows), min(batch, MOST_SAMPLES)).tolist()
    theirs = LeRobotDataset(dataset.repo_id, root=dataset.root, delta_timestamps=deltas, video_backend="pyav")
    rows = [each for each in windows.batch(frames).values() if isinstance(each, Tensor)]
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(0))
    collate = Counterpart(
        "LeRobotDataset, collated", lambda: default_collate([theirs[frame] for frame in few]), len(few)
    )
    index = Counterpart("indexing as many rows", lambda: [each[order] for each in rows], batch)
    return Work(lambda: windows.batch(frames), batch, collate, index, device="cpu")


def normalising(policy: LoadedPolicy, dataset: LeRobotDataset, way: str, batch: int, device: str) -> Work:
    """Normalise a batch of training windows, or turn actions back into px (`way`), with LeRobot's processors.

    The floor is one multiplication of every number, and its copy from the CPU to the device or back.
    """
    windows = Windows(dataset, delta_timestamps(policy.policy.config, dataset.fps))
    raw = windows.batch(_spread(len(windows), batch))
    given = {key: raw[key] for key in BATCH_KEYS}
    actions = policy.preprocessor(given)["action"]
    numbers = [each for each in given.values() if each.is_floating_point()]
    call, floor = {
        "normalise": (
            lambda: policy.preprocessor(given),
            lambda: [each.to(device) * 2.0 for each in numbers],
        ),
        "unnormalise": (lambda: policy.postprocessor(actions), lambda: (actions * 2.0).cpu()),
    }[way]
    return Work(call, batch, floor=Counterpart("one multiplication of the same numbers", floor, batch))


def _spread(length: int, n: int) -> Tensor:
    """Indices (n,) in range(length), evenly spread, in random order; some repeat if n > length."""
    generator = torch.Generator().manual_seed(0)
    places = torch.linspace(0, length - 1, n).round().long()
    return places[torch.randperm(n, generator=generator)]
