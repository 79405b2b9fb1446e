"""Blocks draw the same random numbers every time, and a policy leaves everything as it found it."""

import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from il_bench.protocol import BLOCK_SIZE
from il_bench.rollout import blocks as module
from il_bench.rollout import rollout
from il_bench.rollout.surroundings import holding, put_back, settings, undisturbed
from tests.rollout.conftest import FIRST
from tests.rollout.policies import Batch, Scripted

DRAWS: dict[str, Callable[[], float]] = {
    "torch": lambda: float(torch.rand(())),
    "numpy": lambda: float(np.random.rand()),
    "random": random.random,
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STEPS", 3)


def still(batch: Batch) -> torch.Tensor:
    return batch["observation.state"]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_block_draws_the_same_numbers_every_time_and_disturbs_no_generator(
    draw: Callable[[], float],
) -> None:
    drawn: list[float] = []

    def act(batch: Batch, step: int) -> torch.Tensor:
        drawn.append(draw())
        return still(batch)

    seeds = range(FIRST, FIRST + 2 * BLOCK_SIZE)
    before = draw()
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    following = draw()
    torch.set_rng_state(kept[0]), np.random.set_state(kept[1]), random.setstate(kept[2])
    rollout(Scripted(act), seeds)
    assert draw() == following != before
    rollout(Scripted(act), seeds)
    rollout(Scripted(act), seeds[BLOCK_SIZE:])
    first, second = drawn[:3], drawn[3:6]
    assert first != second
    assert drawn == [*first, *second, *first, *second, *second]


@pytest.mark.usefixtures("short")
def test_torch_runs_on_one_thread_and_a_policy_that_changes_that_is_told() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    during = []

    def act(batch: Batch, step: int) -> torch.Tensor:
        during.append(torch.get_num_threads())
        return still(batch)

    def many(batch: Batch, step: int) -> torch.Tensor:
        torch.set_num_threads(3)
        return still(batch)

    try:
        rollout(Scripted(act), [FIRST])
        assert (set(during), torch.get_num_threads()) == ({1}, 2)
        with pytest.warns(
            UserWarning, match=r"policy Scripted changed torch's number of threads \(1 -> 3\); put back"
        ):
            rollout(Scripted(many), [FIRST])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "dtype": (
        lambda: torch.set_default_dtype(torch.float64),
        r"torch's default dtype \(torch.float32 -> torch.float64\)",
    ),
    "device": (lambda: torch.set_default_device("meta"), r"torch's default device \(cpu -> meta\)"),
    "gradients": (lambda: torch.set_grad_enabled(False), r"torch's gradient mode \(True -> False\)"),
    "autocast": (lambda: torch.set_autocast_enabled("cpu", True), "torch's autocast on cpu"),
    "deterministic": (lambda: torch.use_deterministic_algorithms(True), "torch's deterministic algorithms"),
    "precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        "torch's precision of float32 products",
    ),
    "cudnn": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "cuDNN's flags"),
    "errors": (lambda: np.seterr(under="raise"), "numpy's floating-point errors under"),
    "folder": (lambda: os.chdir("/"), r"the working directory \(.* -> /\)"),
    "environment": (
        lambda: os.environ.update(SECRET_OF_MINE="12345", PATH=""),
        "the environment variables PATH, SECRET_OF_MINE;",
    ),
}


class Changes:
    """Changes a setting of the process and stays where it is."""

    def __init__(self, change: Callable[[], object]) -> None:
        self.reset = change

    def select_action(self, batch: Batch) -> torch.Tensor:
        return still(batch)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_what_a_policy_changes_is_put_back_and_told_once(change: Callable[[], object], said: str) -> None:
    before = settings()
    try:
        with pytest.warns(UserWarning, match=f"^policy Changes changed {said}") as told:
            rollout(Changes(change), [FIRST, FIRST + 50])
        assert len(told) == 1
        assert "12345" not in str(told[0].message)
        assert settings() == before
    finally:
        put_back(before)


def test_a_folder_that_is_gone_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    with pytest.warns(UserWarning, match="working directory"), undisturbed("policy mine"):
        os.chdir(gone)
        gone.rmdir()
    assert Path.cwd() == tmp_path


@pytest.mark.usefixtures("short")
def test_a_policy_that_changes_nothing_is_not_blamed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rollout(Scripted(lambda batch, step: still(batch)), [FIRST])


def test_what_was_changed_can_hold_for_who_changed_it() -> None:
    before = settings()
    with pytest.warns(UserWarning, match="default dtype"), undisturbed("loading mine") as changed:
        torch.set_default_dtype(torch.float64)
        os.environ["OF_MINE"] = "1"
    assert settings() == before
    with holding(changed):
        assert torch.get_default_dtype() == torch.float64 and os.environ["OF_MINE"] == "1"
    assert settings() == before
