"""Both ways between here and LeRobot's commands: their folder loads here, ours loads there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from il_bench.data import open_dataset
from il_bench.policies.checkpoint import PolicyLoader, load_policy
from il_bench.rollout import rollout

pytestmark = pytest.mark.slow
SEEDS = (100_000, 100_001)


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short episodes as a LeRobotDataset folder."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    np.savez(
        folder / "demos.npz",
        action=rng.uniform(100, 400, (60, 2)).astype(np.float32),
        state=np.column_stack([rng.uniform(100, 400, (60, 4)), rng.uniform(0, 6, 60)]).astype(np.float32),
        episode_ends=np.array([30, 60]),
    )
    return Path(open_dataset(folder / "demos.npz", cache_dir=folder / "cache").root)


def lerobot(command: str, *arguments: str, cwd: Path) -> None:
    environment = {**os.environ, "SDL_VIDEODRIVER": "dummy", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    program = Path(sys.executable).with_name(command)
    done = subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def lerobot_train(policy: list[str], dataset_root: Path, output: Path) -> Path:
    lerobot(
        "lerobot-train",
        *policy,
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        f"--dataset.repo_id=local/{dataset_root.name}",
        f"--dataset.root={dataset_root}",
        "--batch_size=4",
        "--steps=2",
        "--save_freq=2",
        "--num_workers=0",
        f"--output_dir={output}",
        "--wandb.enable=false",
        cwd=output.parent,
    )
    return output


def lerobot_eval(folder: Path, tmp_path: Path, *extra: str) -> list[float]:
    """Best reward of each of SEEDS by `lerobot-eval`, in gym-pusht."""
    lerobot(
        "lerobot-eval",
        f"--policy.path={folder}",
        *extra,
        "--policy.device=cpu",
        "--env.type=pusht",
        "--env.obs_type=environment_state_agent_pos",
        f"--eval.n_episodes={len(SEEDS)}",
        f"--eval.batch_size={len(SEEDS)}",
        "--eval.use_async_envs=false",
        f"--seed={SEEDS[0]}",
        f"--output_dir={tmp_path / 'eval'}",
        cwd=tmp_path,
    )
    info = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    return info["per_task"][0]["metrics"]["max_rewards"]


def test_an_act_of_lerobot_train_gives_lerobot_evals_rewards_here(dataset_root: Path, tmp_path: Path) -> None:
    act = ["--policy.type=act", "--policy.dim_model=32", "--policy.n_heads=2", "--policy.dim_feedforward=32"]
    act += ["--policy.chunk_size=16", "--policy.n_action_steps=8"]
    run = lerobot_train(act, dataset_root, tmp_path / "run")
    theirs = lerobot_eval(run / "checkpoints" / "last" / "pretrained_model", tmp_path)
    ours = rollout(PolicyLoader(str(run)), SEEDS)
    assert load_policy(run).track == "keypoints"
    np.testing.assert_allclose(ours.max_reward, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "policy",
    [
        ["--policy.type=il_bc", "--policy.hidden_dim=16"],
        ["--policy.type=il_bet", "--policy.codebook_size=2", "--policy.gpt_n_layer=1"],
        ["--policy.type=il_vqbet", "--policy.gpt_n_layer=1", "--policy.n_vqvae_training_steps=1"],
    ],
    ids=["il_bc", "il_bet", "il_vqbet"],
)
def test_our_types_are_trained_and_evaluated_by_lerobots_commands(
    policy: list[str], dataset_root: Path, tmp_path: Path
) -> None:
    discover = "--policy.discover_packages_path=il_bench.policies"
    run = lerobot_train([discover, *policy], dataset_root, tmp_path / "run")
    theirs = lerobot_eval(run / "checkpoints" / "last" / "pretrained_model", tmp_path, discover)
    assert len(theirs) == len(SEEDS)
    if policy[0].endswith("il_bc"):  # the others draw random numbers, in another order than LeRobot's
        ours = rollout(PolicyLoader(str(run)), SEEDS)
        np.testing.assert_allclose(ours.max_reward, theirs, rtol=0, atol=1e-6)
