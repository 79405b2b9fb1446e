"""Both ways between here and LeRobot's commands: their folder loads here, ours loads there.

Also the distribution `lerobot_policy_il_bench`, which makes il_bench's policies known to LeRobot's commands.
"""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import il_bench
from il_bench.data import open_dataset
from il_bench.policies.checkpoint import load_policy
from il_bench.rollout import rollout

SEEDS = (100_000, 100_001)
NAME = "lerobot_policy_il_bench"
SOURCE = Path(__file__).parents[2] / NAME
ours = pytest.mark.parametrize(
    "policy",
    [
        ("il_bc", "--policy.hidden_dim=16"),
        ("il_bet", "--policy.codebook_size=2", "--policy.gpt_n_layer=1"),
        ("il_vqbet", "--policy.gpt_n_layer=1", "--policy.n_vqvae_training_steps=1"),
    ],
    ids=lambda policy: policy[0],
)


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


def lerobot(command: str, *arguments: str, cwd: Path, site: Path | None = None) -> str:
    """Run a command of LeRobot, with the packages in `site` installed beside it: "", or why it failed."""
    environment = {**os.environ, "SDL_VIDEODRIVER": "dummy", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    path = [str(site or ""), environment.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    program = Path(sys.executable).with_name(command)
    done = subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    return done.stderr[-3000:] or "failed" if done.returncode else ""


def train(dataset_root: Path, folder: Path, *policy: str, site: Path | None = None) -> Path:
    """Two steps of `lerobot-train`: the run's folder."""
    said = lerobot(
        "lerobot-train",
        *policy,
        *("--policy.device=cpu", "--policy.push_to_hub=false", "--wandb.enable=false"),
        *(f"--dataset.repo_id=local/{dataset_root.name}", f"--dataset.root={dataset_root}"),
        *("--batch_size=4", "--steps=2", "--save_freq=2", "--num_workers=0"),
        f"--output_dir={folder / 'run'}",
        cwd=folder,
        site=site,
    )
    assert said == ""
    return folder / "run"


def max_rewards(run: Path, *options: str, site: Path | None = None) -> list[float]:
    """Best reward of each of SEEDS by `lerobot-eval`, in gym-pusht."""
    said = lerobot(
        "lerobot-eval",
        f"--policy.path={run / 'checkpoints' / 'last' / 'pretrained_model'}",
        *options,
        *("--policy.device=cpu", "--env.type=pusht", "--env.obs_type=environment_state_agent_pos"),
        *(f"--eval.n_episodes={len(SEEDS)}", f"--eval.batch_size={len(SEEDS)}", f"--seed={SEEDS[0]}"),
        *("--eval.use_async_envs=false", f"--output_dir={run.parent / 'eval'}"),
        cwd=run.parent,
        site=site,
    )
    assert said == ""
    info = json.loads((run.parent / "eval" / "eval_info.json").read_text())
    found: list[float] = info["per_task"][0]["metrics"]["max_rewards"]
    return found


@pytest.mark.slow
def test_an_act_of_lerobot_train_gives_lerobot_evals_rewards_here(dataset_root: Path, tmp_path: Path) -> None:
    act = ("--policy.type=act", "--policy.dim_model=32", "--policy.n_heads=2", "--policy.dim_feedforward=32")
    chunks = ("--policy.chunk_size=16", "--policy.n_action_steps=8")
    run = train(dataset_root, tmp_path, *act, *chunks)
    assert load_policy(run).track == "keypoints"
    here = rollout(partial(load_policy, str(run)), SEEDS).max_reward
    np.testing.assert_allclose(here, max_rewards(run), rtol=0, atol=1e-6)


@pytest.mark.slow
@ours
def test_our_types_are_trained_and_evaluated_by_lerobots_commands(
    policy: tuple[str, ...], dataset_root: Path, tmp_path: Path
) -> None:
    discover = "--policy.discover_packages_path=il_bench.policies"
    run = train(dataset_root, tmp_path, discover, f"--policy.type={policy[0]}", *policy[1:])
    theirs = max_rewards(run, discover)
    assert len(theirs) == len(SEEDS)
    if policy[0] == "il_bc":  # the others draw random numbers, in another order than LeRobot's
        here = rollout(partial(load_policy, str(run)), SEEDS).max_reward
        np.testing.assert_allclose(here, theirs, rtol=0, atol=1e-6)


def test_the_distributions_version_and_its_il_bench_are_those_of_the_checkout() -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == NAME, "LeRobot imports the name of the distribution"
    assert project["version"] == il_bench.__version__
    assert project["dependencies"] == [f"il-bench=={il_bench.__version__}"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution's wheel, unpacked into a folder, as an installation leaves it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(SOURCE)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = out.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(out / "site")
    return out / "site"


@pytest.mark.slow
@ours
def test_lerobots_commands_know_the_policies_without_an_option(
    policy: tuple[str, ...], installed: Path, dataset_root: Path, tmp_path: Path
) -> None:
    run = train(dataset_root, tmp_path, f"--policy.type={policy[0]}", *policy[1:], site=installed)
    assert len(max_rewards(run, "--env.episode_length=5", site=installed)) == len(SEEDS)


@pytest.mark.slow
def test_without_it_lerobot_does_not_know_the_policies(tmp_path: Path) -> None:
    arguments = ("--policy.type=il_bc", "--dataset.repo_id=local/x")
    assert "il_bc" in lerobot("lerobot-train", *arguments, cwd=tmp_path)
