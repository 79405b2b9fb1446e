"""Demonstrations that several files need, and what they look at."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from typer.testing import CliRunner

from il_bench.cli import app
from il_bench.data.lerobot_folder import read_column as column  # noqa: F401
from il_bench.demos.build import build_pixels
from il_bench.demos.make import make_demos
from il_bench.demos.states import read_states
from il_bench.pusht.geometry import block_keypoints
from il_bench.pusht.renderer import Renderer
from il_bench.pusht.simulator import Simulator
from tests.data.conftest import _on_its_own  # noqa: F401 (no files outside the temporary folder)

LENGTHS = (14, 9)


class Played:
    """Two short episodes of somebody who pushes the block: the states, and what the camera saw."""

    def __init__(self) -> None:
        world, renderer, rng = Simulator(), Renderer(), np.random.default_rng(0)
        state, action, image, marks = [], [], [], 0
        for seed, length in zip((3, 4), LENGTHS, strict=True):
            world.reset(seed)
            for _ in range(length):
                agent = np.array([world.agent_x, world.agent_y])
                pose = np.array([world.block_x, world.block_y, world.block_angle])
                middle = block_keypoints(pose).reshape(8, 2).mean(axis=0)
                target = np.clip(middle + 0.5 * (middle - agent) + rng.normal(0, 10, 2), 0, 512)
                state.append([*agent, *pose])
                action.append(target.astype(np.float32))
                image.append(renderer.view(world))
                marks += bool(renderer.contact_marks(world.space))
                world.step(*action[-1].tolist())
        self.state, self.action = np.array(state, np.float32), np.array(action)
        self.image, self.n_touching = np.array(image), marks

    def save_frames(self, path: Path, **changed: np.ndarray) -> Path:
        """Some of the images, as the original frames that a build is compared with."""
        index = np.array([0, 5, 13, 14, 22])
        np.savez(path, **{"index": index, "image": self.image[index], **changed})
        return path


@pytest.fixture(scope="package")
def played() -> Played:
    return Played()


@pytest.fixture(scope="package")
def source(played: Played, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was played, as a replay buffer."""
    path = tmp_path_factory.mktemp("source") / "played.npz"
    np.savez(path, state=played.state, action=played.action, episode_ends=np.cumsum(LENGTHS))
    return path


@pytest.fixture(scope="package")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pixels(read_states(source), tmp_path_factory.mktemp("built") / "pixels")


@pytest.fixture(scope="package")
def filmed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pixels(read_states(source), tmp_path_factory.mktemp("filmed") / "video", video=True)


@pytest.fixture(scope="package")
def two_solved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes by the expert, seeds 3 and 4."""
    output = tmp_path_factory.mktemp("made") / "expert-demos"
    make_demos(output, episodes=2, seed=3)
    return output


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["demos", *map(str, arguments)])


def facts_of(root: Path) -> dict[str, Any]:
    """What a data set says of where it comes from."""
    return json.loads((root / "meta" / "il_bench.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def opened(root: Path) -> LeRobotDataset:
    return LeRobotDataset("local/pixels", root=root, video_backend="pyav")
