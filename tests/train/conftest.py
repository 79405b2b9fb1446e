"""Data sets as small as can be: random numbers, and two pushes at random seen by PushT's camera."""

from pathlib import Path

import numpy as np
import pytest

FRAMES = 20
FEATURES = {
    "observation.image": {"dtype": "image", "shape": (96, 96, 3), "names": ["height", "width", "channel"]},
    "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
    "action": {"dtype": "float32", "shape": (2,), "names": None},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    "next.success": {"dtype": "bool", "shape": (1,), "names": None},
}


@pytest.fixture(scope="session")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeRobotDataset folder with the features of ``lerobot/pusht``."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from il_bench.pusht.renderer import Renderer
    from il_bench.pusht.simulator import Simulator

    root = tmp_path_factory.mktemp("data") / "pusht"
    dataset = LeRobotDataset.create("local/pusht", fps=10, features=FEATURES, root=root, use_videos=False)
    rng, renderer = np.random.default_rng(0), Renderer()
    for seed in (0, 1):
        world = Simulator()
        world.reset(seed)
        for step in range(FRAMES):
            action = rng.uniform(100, 400, 2).astype(np.float32)
            dataset.add_frame(
                {
                    "observation.image": renderer.view(world, width=96, height=96),
                    "observation.state": np.array([world.agent_x, world.agent_y], np.float32),
                    "action": action,
                    "next.reward": np.array([world.coverage()], np.float32),
                    "next.done": np.array([step == FRAMES - 1]),
                    "next.success": np.array([False]),
                    "task": "Push the T-shaped block onto the T-shaped target.",
                }
            )
            world.step(*action.tolist())
        dataset.save_episode()
    dataset.finalize()
    return root


@pytest.fixture(scope="package")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay buffer of three short episodes; its conversion is kept in the same folder."""
    folder = tmp_path_factory.mktemp("demos")
    rng = np.random.default_rng(0)
    state = np.column_stack([rng.uniform(100, 400, (120, 4)), rng.uniform(0, 6, 120)]).astype(np.float32)
    action = rng.uniform(100, 400, (120, 2)).astype(np.float32)
    np.savez(folder / "demos.npz", action=action, state=state, episode_ends=np.array([40, 70, 120]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IL_BENCH_CACHE", str(folder / "cache"))
        yield folder / "demos.npz"
