"""Policies that several files roll out; a module of its own, so that worker processes can import it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from il_bench.errors import IlBenchError
from il_bench.protocol import BLOCK_SIZE
from il_bench.rollout import Policy

Batch = dict[str, torch.Tensor]


def towards_block(batch: Batch) -> torch.Tensor:
    return batch["observation.environment_state"].reshape(-1, 8, 2).mean(dim=1)


class Wander:
    """Drives through the block with noise from torch's generator, a whole batch of it at a time."""

    def reset(self) -> None:
        self.drift = torch.randn(BLOCK_SIZE, 2)

    def select_action(self, batch: Batch) -> torch.Tensor:
        self.drift = 0.9 * self.drift + 30 * torch.randn(len(self.drift), 2)
        return towards_block(batch) + self.drift


class Scripted:
    """Calls a function of (batch, step); kept at the top level so that worker processes can load it."""

    def __init__(self, act: Callable[[Batch, int], Any]) -> None:
        self.act = act

    def reset(self) -> None:
        self.step = -1

    def select_action(self, batch: Batch) -> torch.Tensor:
        self.step += 1
        return self.act(batch, self.step)


def load_nothing() -> Policy:
    raise IlBenchError("checkpoint runs/mine has no model.safetensors")


class LastFirst:
    """An executor as somebody might add one: tasks finish in the most confusing order."""

    def run(self, work: Any) -> Iterator[Any]:
        policy = work.load()
        yield from [work.function(policy, task) for task in reversed(work.tasks)]
