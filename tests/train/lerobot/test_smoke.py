"""Every policy trained on images by LeRobot's own trainer for a few steps, saved, evaluated, resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SMALL_GPT = [f"--policy.gpt_{name}={value}" for name, value in (("n_layer", 1), ("n_head", 1))]
# Networks small enough for two cores; everything else is the recipe's.
SMALL = {
    "act": [
        f"--policy.{name}" for name in ("dim_model=32", "n_heads=2", "dim_feedforward=32", "chunk_size=20")
    ],
    "bc": ["--policy.hidden_dim=32"],
    "bet": ["--policy.codebook_size=8", *SMALL_GPT],
    "diffusion": ["--policy.down_dims=[32, 64]", "--policy.num_inference_steps=2"],
    "vqbet": ["--policy.n_vqvae_training_steps=3", *SMALL_GPT],
}


def call(program: str, *words: object, cwd: Path) -> str:
    """What a program of this environment prints, offline."""
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *map(str, words)],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def lerobot_eval(folder: Path, cwd: Path, *extra: str) -> list[float]:
    """Best rewards of two episodes by ``lerobot-eval``."""
    words = [
        *(f"--policy.path={folder}", *extra, "--policy.device=cpu"),
        *("--env.type=pusht", "--env.obs_type=pixels_agent_pos", "--env.episode_length=20"),
        *("--eval.n_episodes=2", "--eval.batch_size=2", "--eval.use_async_envs=false", "--seed=100000"),
    ]
    call("lerobot-eval", *words, f"--output_dir={cwd / 'eval'}", cwd=cwd)
    info = json.loads((cwd / "eval" / "eval_info.json").read_text())
    return info["per_task"][0]["metrics"]["max_rewards"]


@pytest.mark.parametrize("policy", sorted(SMALL))
def test_every_policy_is_trained_saved_evaluated_and_resumed(
    policy: str, pixels: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    train = ["train", policy, "--track", "pixels", "--data", pixels, "--output", output]
    train += ["--eval-episodes", 1, "--steps", 4, "--batch-size", 4, "--save-every", 2, "--eval-every", 4]
    small = ["--", *SMALL[policy], "--num_workers=0", "--log_freq=1"]
    if policy != "act":
        small.append("--policy.spatial_softmax_num_keypoints=8")
    said = call("il-bench", *train, *small, cwd=tmp_path)
    assert ("the residual VQ is trained and frozen" in said) is (policy == "vqbet")
    last = output / "checkpoints" / "last"
    assert json.loads((last / "training_state" / "training_step.json").read_text())["step"] == 4
    rows = [row.split(",") for row in (output / "train_log.csv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["step", "1", "2", "3", "4", "4"] and rows[-1][-1]  # losses and rates
    folder = last / "pretrained_model"
    discover = ["--policy.discover_packages_path=il_bench.policies"] if policy in ("bc", "bet") else []
    assert len(lerobot_eval(folder, tmp_path, *discover)) == 2
    assert "success_rate 0" in call("il-bench", "evaluate", output, "--episodes", 2, cwd=tmp_path)
    (output / "checkpoints" / "last").unlink()
    (output / "checkpoints" / "last").symlink_to("000002")
    call("il-bench", *train, "--resume", *small, cwd=tmp_path)
    assert json.loads((last / "training_state" / "training_step.json").read_text())["step"] == 4
