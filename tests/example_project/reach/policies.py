"""A policy for the plane, and one for PushT."""

import torch
from torch import Tensor, nn


class Reacher(nn.Module):
    """Goes straight to the goal, as fast as it was told to."""

    def __init__(self, speed: float = 0.1) -> None:
        super().__init__()
        self.speed = nn.Parameter(torch.tensor(speed))

    def reset(self) -> None:
        """Nothing to forget."""

    def select_action(self, batch: dict[str, Tensor]) -> Tensor:
        way = batch["observation.environment_state"] - batch["observation.state"]
        return way * torch.clamp(self.speed / way.norm(dim=1, keepdim=True), max=1.0)


class Pusher:
    """Stays where the agent is."""

    def reset(self) -> None:
        """Nothing to forget."""

    def select_action(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["observation.state"]
