"""The distribution `lerobot_policy_il_bench`, which makes il_bench's policies known to LeRobot's commands."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import il_bench

SOURCE = Path(__file__).parents[2] / "lerobot_policy_il_bench"
NAME = "lerobot_policy_il_bench"


def test_its_version_and_its_il_bench_are_those_of_the_checkout() -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == NAME, "LeRobot imports the name of the distribution"
    assert project["version"] == il_bench.__version__
    assert project["dependencies"] == [f"il-bench=={il_bench.__version__}"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its wheel, unpacked into a folder, as an installation leaves it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(SOURCE)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = out.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(out / "site")
    return out / "site"


def lerobot(command: str, *arguments: str, cwd: Path, site: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SDL_VIDEODRIVER": "dummy", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(site or ""), environment.get("PYTHONPATH")])
    )
    program = Path(sys.executable).with_name(command)
    return subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        ("il_bc", "--policy.hidden_dim=16"),
        ("il_bet", "--policy.codebook_size=2", "--policy.gpt_n_layer=1"),
        ("il_vqbet", "--policy.gpt_n_layer=1", "--policy.n_vqvae_training_steps=1"),
    ],
    ids=lambda policy: policy[0],
)
def test_lerobots_commands_know_the_policies_without_an_option(
    policy: tuple[str, ...], installed: Path, tmp_path: Path
) -> None:
    data = Path(il_bench.__file__).parent / "data" / "expert"
    trained = lerobot(
        "lerobot-train",
        f"--policy.type={policy[0]}",
        *policy[1:],
        *("--policy.device=cpu", "--policy.push_to_hub=false", "--wandb.enable=false"),
        *("--dataset.repo_id=local/expert", f"--dataset.root={data}", "--num_workers=0"),
        *("--batch_size=4", "--steps=2", "--save_freq=2", f"--output_dir={tmp_path / 'run'}"),
        cwd=tmp_path,
        site=installed,
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    evaluated = lerobot(
        "lerobot-eval",
        f"--policy.path={tmp_path / 'run' / 'checkpoints' / 'last' / 'pretrained_model'}",
        *("--policy.device=cpu", "--env.type=pusht", "--env.obs_type=environment_state_agent_pos"),
        *(
            "--env.episode_length=5",
            "--eval.n_episodes=1",
            "--eval.batch_size=1",
            "--eval.use_async_envs=false",
        ),
        f"--output_dir={tmp_path / 'eval'}",
        cwd=tmp_path,
        site=installed,
    )
    assert evaluated.returncode == 0, evaluated.stderr[-3000:]
    assert (tmp_path / "eval" / "eval_info.json").exists()


@pytest.mark.slow
def test_without_it_lerobot_does_not_know_the_policies(tmp_path: Path) -> None:
    done = lerobot(
        "lerobot-train", "--policy.type=il_bc", "--dataset.repo_id=local/x", cwd=tmp_path, site=None
    )
    assert done.returncode != 0 and "il_bc" in done.stderr
