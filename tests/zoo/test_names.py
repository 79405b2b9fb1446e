"""The policies that ship, and what the name of a policy means."""

from pathlib import Path

import pytest

from il_bench import zoo
from il_bench.errors import IlBenchError


def test_the_shipped_policies_are_known_by_name_and_track() -> None:
    assert zoo.shipped() == zoo.shipped("keypoints") == ("act", "bc", "bet", "diffusion", "vqbet")


def test_a_name_means_what_ships_before_a_path_and_a_path_before_the_hub(tmp_path: Path) -> None:
    for name in ("act", "some/body"):
        (tmp_path / name).mkdir(parents=True)
    act, expert = zoo.resolve("act", tmp_path), zoo.resolve("expert", tmp_path)
    assert (act.spec, act.path, act.is_shipped) == ("act", zoo.ZOO / "act", True)
    assert (expert.spec, expert.path, expert.repository) == ("expert", None, None)
    for spec in ("some/body", "./act", str(tmp_path / "act")):
        found = zoo.resolve(spec, tmp_path)
        assert found.path == tmp_path / spec and not found.is_shipped
        assert found.spec == str(found.path), "it is found from any folder"
    found = zoo.resolve("else/body@v1.0/a", tmp_path)
    assert (found.path, found.repository, found.revision) == (None, "else/body", "v1.0/a")


@pytest.mark.parametrize("spec", ["atc", "./gone/act", 300 * "x", "~nobody-here/act", "a\0b", "a/b/c", "bc"])
def test_what_means_nothing_lists_the_names_on_offer(tmp_path: Path, spec: str) -> None:
    """Also names that no file and no user can have, and one that ships but is not on offer."""
    with pytest.raises(
        IlBenchError, match=r"no such policy\. Give one of act, mine, a pretrained_model folder"
    ):
        zoo.resolve(spec, tmp_path / "gone", offered=("act", "mine"))


def test_a_name_before_an_equals_sign_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "lr=0.1").mkdir()
    assert zoo.split_name("act=runs/mine", tmp_path) == ("act", "runs/mine")
    assert zoo.split_name("runs/mine", tmp_path) == (None, "runs/mine")
    assert zoo.split_name("lr=0.1", tmp_path) == (None, "lr=0.1")
    for label in ("=runs/mine", "a b=runs/mine"):
        with pytest.raises(IlBenchError, match="there is no usable name before '='"):
            zoo.split_name(label, tmp_path)
