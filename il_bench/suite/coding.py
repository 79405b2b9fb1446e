"""What test_throughput.py times of tokenizers and of the data on their way to them."""

import copy
from collections.abc import Callable

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor, nn
from torch.utils.data import default_collate

from il_bench.data import Windows
from il_bench.data.chunks import Chunks
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.report.schema import PRODUCTS
from il_bench.report.tokenizers import Subject
from il_bench.suite.timing import Work, waited_for
from il_bench.tokenizers import ResidualVQTokenizer, Tokenizer
from il_bench.train.loop import BATCH_KEYS, delta_timestamps

MOST_SAMPLES = 64  # of LeRobot's dataset at once: 2 ms each
LEROBOT = {"encode": "LeRobot's get_code", "decode": "LeRobot's decode"}


def coding(subject: Subject, seen: Chunks, way: str, batch: int, device: str) -> Work:
    """Encode or decode (`way`) a batch of the chunks `seen`, in random order, on the device.

    The reference of a residual VQ is LeRobot's own code on the same weights. The floor of what has a network
    is that network's matrix products, each as large as the network has it; an implementation that folds
    layers together, or looks its answers up in a table, can be faster.
    """
    tokenizer = copy.deepcopy(subject.tokenizer).to(device)
    order = torch.randperm(len(seen.frames), generator=torch.Generator().manual_seed(0))
    rows = order.repeat(-(-batch // len(order)))[:batch]
    chunks = subject.coordinates.chunks(seen).to(device)[rows.to(device)]
    given = {"encode": chunks, "decode": tokenizer.encode(chunks)}[way]
    work: Callable[[Tensor], Tensor] = getattr(tokenizer, way)
    is_residual = isinstance(tokenizer, ResidualVQTokenizer)
    theirs = getattr(tokenizer, f"reference_{way}") if is_residual else None
    products = _products(tokenizer, way, batch)
    return Work(
        call=waited_for(lambda: work(given), device),
        n=batch,
        reference=None if theirs is None else waited_for(lambda: theirs(given), device),
        reference_name=LEROBOT[way] if is_residual else None,
        floor=None if products is None else waited_for(products, device),
        floor_name=None if products is None else PRODUCTS,
    )


def _products(tokenizer: Tokenizer, way: str, batch: int) -> Callable[[], Tensor] | None:
    """The matrix products of a tokenizer's encoder or decoder alone; None where it has none."""
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

    return multiply


def windowing(policy: LoadedPolicy, dataset: LeRobotDataset, batch: int) -> Work:
    """Gather a batch of a policy's training windows, on the CPU, where datasets are.

    The reference is LeRobot's dataset, collated; the floor is to index tensors of the same rows in as random
    an order.
    """
    deltas = delta_timestamps(policy.policy.config, dataset.fps)
    windows = Windows(dataset, deltas)
    frames = _spread(len(windows), batch)
    few = _spread(len(windows), min(batch, MOST_SAMPLES)).tolist()
    theirs = LeRobotDataset(dataset.repo_id, root=dataset.root, delta_timestamps=deltas, video_backend="pyav")
    rows = [each for each in windows.batch(frames).values() if isinstance(each, Tensor)]
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(0))
    return Work(
        call=lambda: windows.batch(frames),
        n=batch,
        reference=lambda: default_collate([theirs[frame] for frame in few]),
        reference_name="LeRobotDataset, collated",
        reference_n=len(few),
        floor=lambda: [each[order] for each in rows],
        floor_name="indexing as many rows",
        device="cpu",
    )


def normalising(policy: LoadedPolicy, dataset: LeRobotDataset, way: str, batch: int, device: str) -> Work:
    """Normalise a batch of training windows, or turn actions back into px, by LeRobot's processors.

    The floor is one multiplication of every number, and its way from the CPU to the device or back.
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
    return Work(
        call=waited_for(call, device),
        n=batch,
        floor=waited_for(floor, device),
        floor_name="one multiplication of the same numbers",
    )


def _spread(length: int, n: int) -> Tensor:
    """Places (n,) in range(length), evenly spread, in an order that jumps; repeated where they are few."""
    generator = torch.Generator().manual_seed(0)
    places = torch.linspace(0, length - 1, n).round().long()
    return places[torch.randperm(n, generator=generator)]
