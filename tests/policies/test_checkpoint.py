"""Where a checkpoint is: folders of a run, the Hub and its cache, names that are nothing."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub.utils import filter_repo_objects

from il_bench.policies.checkpoint import Checkpoint, load_policy
from il_bench.policies.checkpoint.checkpoint import FETCHED

from .conftest import refuses

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def found(spec: str | Path) -> Path:
    return Checkpoint.find(spec).folder


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path) -> Path:
    """A run folder of `lerobot-train`: two checkpoints, `last` a link to the newer."""
    checkpoints = tmp_path / "run" / "checkpoints"
    for step in ("000010", "000020"):
        shutil.copytree(checkpoint, checkpoints / step / "pretrained_model")
    (checkpoints / "last").symlink_to("000020")
    return tmp_path / "run"


@pytest.mark.parametrize("is_link", [True, False])
def test_the_last_checkpoint_of_a_run_is_found(run: Path, is_link: bool) -> None:
    last = run / "checkpoints" / "last"
    if not is_link:
        last.unlink()
        (run / "checkpoints" / "000020").rename(last)
    for spec in (run, run / "checkpoints", last, last / "pretrained_model"):
        assert found(spec) == last / "pretrained_model"
    assert found(run / "checkpoints" / "000010").parent.name == "000010"


def test_a_last_that_leads_nowhere_names_the_others(run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "000020")
    refuses(r"last: missing, or a link to nothing; .*checkpoints/000010\.$", found, run)


def test_a_file_of_a_checkpoint_names_its_folder(checkpoint: Path) -> None:
    refuses(rf"a file; give the folder it lies in: {checkpoint}", load_policy, checkpoint / "config.json")


def test_a_name_that_is_nothing_lists_the_zoo_and_the_planner_has_no_checkpoint() -> None:
    refuses(r"no such policy\. Give one of act, bc, .*, expert, a pretrained", found, "definitely-not-here")
    refuses(r"^expert: the planner has no checkpoint", found, "expert")


def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refused)
    refuses(r"cannot be read \(.*Permission denied\); give the folder", found, tmp_path)


# ---- the Hub


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The Hub's cache, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def cached(offline: Path, checkpoint: Path) -> Path:
    """A policy that was fetched before, as huggingface_hub keeps it."""
    repository = offline / "models--some-body--tiny.act"
    shutil.copytree(checkpoint, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


@pytest.mark.parametrize(
    "spec", ["some-body/tiny.act", f"some-body/tiny.act@{COMMIT}", "some-body/tiny.act@main"]
)
def test_a_hub_id_is_pinned_to_its_commit(cached: Path, checkpoint: Path, spec: str) -> None:
    loaded = load_policy(spec)
    assert loaded.checkpoint == f"some-body/tiny.act@{COMMIT}"
    assert loaded.sha256 == load_policy(checkpoint).sha256


def test_another_commit_of_a_hub_id_is_another_policy(cached: Path) -> None:
    refuses(r"some-body/tiny.act: not a local folder, and it", load_policy, "some-body/tiny.act@abcdef0")


def test_a_hub_repository_without_a_policy_at_its_root_is_named(cached: Path) -> None:
    (cached / "snapshots" / COMMIT / "config.json").unlink()
    refuses(rf"some-body/tiny.act@{COMMIT}: holds no config.json at its", load_policy, "some-body/tiny.act")


def test_of_a_hub_repository_no_pickle_and_no_other_checkpoint_is_fetched() -> None:
    wanted = ["config.json", "model.safetensors", "policy_preprocessor.json", "training.json"]
    wanted += ["policy_preprocessor_step_3_normalizer_processor.safetensors"]
    others = [
        "pytorch_model.bin",
        "policy.pt",
        "checkpoints/000010/pretrained_model/model.safetensors",
        "README.md",
    ]
    fetched = filter_repo_objects([*wanted, *others], allow_patterns=list(FETCHED))
    assert list(fetched) == wanted


def test_a_hub_id_offline_is_one_line(offline: Path) -> None:
    refuses("nobody/nothing: not a local folder, and it could not be fetched", found, "nobody/nothing")
