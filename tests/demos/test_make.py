"""`il-bench demos make`: the same data whatever the workers, and nothing left out silently."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch

from il_bench.data import open_dataset
from il_bench.data.lerobot_folder import episode_ends
from il_bench.demos import recording
from il_bench.demos.make import make_demos
from il_bench.demos.provenance import EpisodeOrigin
from il_bench.demos.recording import RecordedBlock, Recording, draw_takeover
from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint import load_policy
from il_bench.pusht.batch import PushTBatch
from il_bench.pusht.simulator import Simulator
from il_bench.rollout import executors, run_block
from tests.demos.conftest import column, contents, facts_of, invoke
from tests.rollout.policies import LastFirst

# Two tasks of two episodes: seeds of the same ten are made by one worker.
SEED, EPISODES, NOISE = 8, 4, 0.05
ARGUMENTS: dict[str, Any] = {"episodes": EPISODES, "seed": SEED, "noise": NOISE}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("made") / "demos"
    make_demos(output, **ARGUMENTS)
    return output


def interrupted_after(n_done: int) -> Callable[[int, int], None]:
    def on_progress(done: int, total: int) -> None:
        if done >= n_done:
            raise KeyboardInterrupt

    return on_progress


def test_workers_and_interruptions_do_not_change_a_byte(made: Path, tmp_path: Path) -> None:
    output = tmp_path / "demos"
    with pytest.raises(KeyboardInterrupt):
        make_demos(output, **ARGUMENTS, on_progress=interrupted_after(2))
    assert not output.exists()
    done = []
    make_demos(output, **ARGUMENTS, workers=2, on_progress=lambda n, total: done.append((n, total)))
    assert done == [(2, EPISODES), (4, EPISODES)]  # the finished block was not made again
    assert contents(output) == contents(made)
    assert [path.name for path in tmp_path.iterdir()] == ["demos"]


def test_an_executor_that_is_added_makes_the_same_files(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "choose", lambda *_: LastFirst())
    make_demos(tmp_path / "demos", **ARGUMENTS)
    assert contents(tmp_path / "demos") == contents(made)


def test_one_process_at_a_time_makes_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "demos.partial").mkdir()
    with (
        filelock.FileLock(tmp_path / "demos.partial" / "lock"),
        pytest.raises(IlBenchError, match=r"demos\.partial: another process is making these; let it finish"),
    ):
        make_demos(tmp_path / "demos", **ARGUMENTS)


def test_a_finished_block_comes_back_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = Recording(rng.random((5, 2)), rng.random((5, 3)), rng.random((5, 2), np.float32), rng.random(5))
    episode = EpisodeOrigin(seed=3, steps=5, max_coverage=0.96, success=True, noise=0.1, takeover=4)
    path = tmp_path / "block.npz"
    RecordedBlock([episode], frames).save(path)
    assert RecordedBlock.is_whole(path)
    block = RecordedBlock.load(path)
    assert block.episodes == [episode]
    for name, array in vars(frames).items():
        np.testing.assert_array_equal(getattr(block.frames, name), array)
    path.write_bytes(path.read_bytes()[:-100])
    assert not RecordedBlock.is_whole(path)
    assert not RecordedBlock.is_whole(tmp_path / "other.npz")


def test_the_same_command_again_changes_nothing_and_makes_nothing(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "Expert", None)
    before = contents(made)
    assert len(make_demos(made, **ARGUMENTS).episodes) == EPISODES
    assert contents(made) == before


def test_frames_and_provenance_tell_the_same_story(made: Path) -> None:
    dataset, facts = open_dataset(made), facts_of(made)
    ends, episodes = episode_ends(dataset), facts["episodes"]
    assert set(dataset[0]) >= {"observation.state", "observation.environment_state", "action", "next.reward"}
    assert [episode["seed"] for episode in episodes] == list(range(SEED, SEED + EPISODES))
    assert np.cumsum([episode["steps"] for episode in episodes]).tolist() == ends.tolist()
    assert all(episode["success"] and episode["max_coverage"] > 0.95 for episode in episodes)
    assert {episode["noise"] for episode in episodes} == {NOISE}
    last = np.zeros(dataset.num_frames, bool)
    last[ends - 1] = True
    for key in ("next.done", "next.success"):
        np.testing.assert_array_equal(column(dataset, key).reshape(-1), last)
    np.testing.assert_array_equal(column(dataset, "next.reward").reshape(-1) == 1.0, last)
    world = Simulator()
    for first, episode in zip([0, *ends[:-1]], episodes, strict=True):
        world.reset(episode["seed"])
        start = np.array([world.agent_x, world.agent_y], np.float32)
        np.testing.assert_array_equal(column(dataset, "observation.state")[first], start)
    (part,) = facts["parts"]
    assert part["command"] == f"il-bench demos make --episodes {EPISODES} --seed {SEED} --noise {NOISE}"
    assert {"torch", "lerobot", "pymunk"} <= set(part["made"]["fingerprint"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 99_997}, "seeds 99997 .. 100000: demonstrations use seeds 0 .. 99999 only"),
        ({"seed": -1}, "seeds -1 .. 2: demonstrations use seeds 0"),
        ({"seed": 200_000}, "those above are for evaluations"),
        ({"episodes": 0}, "episodes is 0; it must be within 1"),
        ({"noise": float("nan")}, "noise is nan; it must be within 0"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"takeover_max": 301}, "takeover_max is 301; it must be within 0 .. 300"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(IlBenchError, match=message.replace("..", r"\.\.")):
        make_demos(tmp_path / "demos", **{**ARGUMENTS, **changed})
    assert list(tmp_path.iterdir()) == []


def test_what_another_command_made_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(IlBenchError, match=r"was made by another command \(noise was 0.05, is 0.0"):
        make_demos(made, **{**ARGUMENTS, "noise": 0.0})
    output = tmp_path / "demos"
    with pytest.raises(KeyboardInterrupt):
        make_demos(output, **ARGUMENTS, on_progress=interrupted_after(0))
    with pytest.raises(IlBenchError, match=r"demos.partial: half made by another command \(seed was 8, is 9"):
        make_demos(output, **{**ARGUMENTS, "seed": 9})
    output.mkdir()
    (output / "mine.txt").touch()
    with pytest.raises(IlBenchError, match="demos: exists already and was not made by this command"):
        make_demos(output, **ARGUMENTS)


class HoldsStillInSecond(recording.Expert):
    """An expert that never touches the block of seed SEED + 1."""

    def act(self, agent: np.ndarray, pose: np.ndarray) -> np.ndarray:
        world = Simulator()
        world.reset(SEED + 1)
        holds = np.array_equal(pose, [world.block_x, world.block_y, world.block_angle])
        return agent if holds else super().act(agent, pose)


def test_unsolved_episodes_are_left_out_listed_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "Expert", HoldsStillInSecond)
    result = invoke("make", "--episodes", 2, "--seed", SEED, "--output", tmp_path / "demos")
    assert result.exit_code == 0, result.output
    assert f"not solved within 300 steps: 1 (seeds {SEED + 1})" in result.output
    assert open_dataset(tmp_path / "demos").num_episodes == 1
    facts = facts_of(tmp_path / "demos")
    (left_out,) = facts["parts"][0]["left_out"]
    assert (left_out["seed"], left_out["steps"], left_out["success"]) == (SEED + 1, 300, False)
    result = invoke("make", "--episodes", 1, "--seed", SEED + 1, "--output", tmp_path / "none")
    assert result.exit_code == 2
    assert "the expert solved none of 1 episodes" in result.output


def test_the_command_names_options_that_cannot_be_in_one_line(tmp_path: Path) -> None:
    for options, said in (
        (["--seed", 99999], "seeds 99999 .. 100000"),
        (["--takeover-max", 9], "--takeover-max: no policy drives before the expert; add --from-policy"),
        (["--only-unsolved"], "--only-unsolved: no policy drives before the expert; add --from-policy"),
    ):
        result = invoke("make", "--episodes", 2, *options, "--output", tmp_path / "demos")
        assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
        assert said in result.output


# --- a policy drives first --------------------------------------------------------------------------------


class Watched:
    """A policy, and what it saw and did."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.reset = policy, policy.reset
        self.seen: list[dict[str, np.ndarray]] = []
        self.said: list[np.ndarray] = []

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.seen.append({key: value.numpy().copy() for key, value in batch.items()})
        self.said.append(self.policy.select_action(batch).numpy().copy())
        return torch.from_numpy(self.said[-1])


def test_the_expert_goes_on_where_the_policy_left_off(checkpoint: Path, tmp_path: Path) -> None:
    seeds = [48, 49, 50]  # of two blocks
    output = tmp_path / "dagger"
    make_demos(output, episodes=3, seed=seeds[0], from_policy=str(checkpoint), takeover_max=30)
    dataset = open_dataset(output)
    facts = facts_of(output)
    starts = np.array(dataset.meta.episodes["dataset_from_index"])
    assert facts["parts"][0]["made"]["policy"]["sha256"] == load_policy(checkpoint).sha256
    assert max(episode["takeover"] for episode in facts["episodes"]) > 5  # and not the start states
    for first, episode in zip(starts, facts["episodes"], strict=True):
        seed, takeover = episode["seed"], episode["takeover"]
        watched = Watched(load_policy(checkpoint))
        run_block(watched, np.array([seed]))  # as in an evaluation
        for key, seen in watched.seen[takeover].items():
            np.testing.assert_array_equal(
                column(dataset, key)[first], seen[seed % 50], err_msg=f"{seed} {key}"
            )
        world = PushTBatch()  # the agent's velocity shows one step later
        world.reset([seed])
        for said in watched.said[:takeover]:
            world.step(said[[seed % 50]])
        world.step(column(dataset, "action")[[first]])
        after = world.observations()["observation.state"][0]
        np.testing.assert_array_equal(column(dataset, "observation.state")[first + 1], after)


def test_what_the_policy_solves_can_be_left_out(tmp_path: Path) -> None:
    """The shipped bet solves most of a block; the expert is recorded in the other episodes alone."""
    seeds = np.arange(2_000, 2_050)
    outcomes = run_block(load_policy("bet"), seeds)
    unsolved = [int(seed) for seed, n in zip(seeds, outcomes.n_steps, strict=True) if n > 100]
    assert 0 < len(unsolved) < len(seeds)
    output = tmp_path / "unsolved"
    settings = {"from_policy": "bet", "takeover_max": 100, "only_unsolved": True}
    make_demos(output, episodes=len(seeds), seed=2_000, **settings)
    facts = facts_of(output)
    assert [episode["seed"] for episode in facts["episodes"]] == unsolved
    assert facts["parts"][0]["command"].endswith("--takeover-max 100 --only-unsolved")


def test_a_policy_that_leaves_nothing_to_do_is_one_clear_error(tmp_path: Path) -> None:
    options = ("--from-policy", "expert", "--takeover-max", 299, "--only-unsolved")
    result = invoke("make", "--episodes", 2, *options, "--output", tmp_path / "demos")
    assert result.exit_code == 2
    assert "the policy solved all 2 episodes itself" in result.output


def test_takeovers_are_uniform_and_before_the_policy_has_solved_it() -> None:
    drawn = np.array([draw_takeover(seed, 20, None) for seed in range(4_000)])
    assert set(drawn.tolist()) == set(range(21))
    assert drawn.mean() == pytest.approx(10.0, abs=0.4)
    early = np.array([draw_takeover(seed, 20, 5) for seed in range(1_000)])
    assert set(early.tolist()) == set(range(5))
    assert draw_takeover(3, 20, 1) == 0


def test_the_embedded_set_opens_and_is_small() -> None:
    dataset = open_dataset("expert")
    root = Path(dataset.root)
    facts = facts_of(root)
    assert facts["parts"][0]["command"] == "il-bench demos make --episodes 200 --seed 0"
    seeds = {episode["seed"] for episode in facts["episodes"] + facts["parts"][0]["left_out"]}
    assert seeds == set(range(200))
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 2_000_000
    assert column(dataset, "next.success").reshape(-1)[episode_ends(dataset) - 1].all()


def test_a_folder_of_the_embedded_name_is_reached_by_its_path(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "expert")
    assert open_dataset("./expert").num_episodes == EPISODES
