"""The expert behind LeRobot's interface, rolled out like any policy: the ceiling in a table."""

import numpy as np
import torch
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE
from numpy.typing import NDArray

from il_bench.protocol import SUCCESS_COVERAGE
from il_bench.pusht.expert import Expert
from il_bench.pusht.geometry import BAR, STEM, coverage

_CORNERS = np.array(BAR + STEM)


class ExpertPolicy:
    """One `Expert` for every world of a batch, on raw observations and actions in px.

    It sees what policies see: float32 keypoints, from which it takes the block's pose within 1e-4 px.
    """

    def __init__(self) -> None:
        self._experts: list[Expert] = []

    def reset(self) -> None:
        """Forget the episode."""
        self._experts = []

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Actions (B, 2) px for `observation.state` (B, 2) and `observation.environment_state` (B, 16).

        Where PushT is solved, the agent stays.
        """
        agents = batch[OBS_STATE].double().cpu().numpy()
        poses = poses_of(batch[OBS_ENV_STATE].double().cpu().numpy())
        self._experts += [Expert() for _ in agents[len(self._experts) :]]
        actions = [
            agent if coverage(*pose.tolist()) > SUCCESS_COVERAGE else expert.act(agent, pose)
            for expert, agent, pose in zip(self._experts, agents, poses, strict=False)
        ]
        return torch.from_numpy(np.array(actions)).float()


def poses_of(keypoints: NDArray[np.float64]) -> NDArray[np.float64]:
    """The poses (B, 3) `[x, y, angle]` that fit these keypoints (B, 16) best, by least squares."""
    points = keypoints.reshape(-1, 8, 2)
    middle, own_middle = points.mean(axis=1), _CORNERS.mean(axis=0)
    x, y = np.moveaxis(points - middle[:, None], -1, 0)  # (B, 8) each
    u, v = (_CORNERS - own_middle).T
    angle = np.arctan2((u * y - v * x).sum(axis=1), (u * x + v * y).sum(axis=1))
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = own_middle.tolist()
    return np.stack([middle[:, 0] - a * cos + b * sin, middle[:, 1] - a * sin - b * cos, angle], axis=1)
