"""Recording demonstrations: a policy may drive first, then the expert goes on, and every frame is kept.

Driving first is DAgger (Ross et al. 2011): the expert shows how to go on from states that a policy reaches.
Disturbing what is executed, not what is recorded, is DART (Laskey et al. 2017).
"""

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from il_bench.demos.provenance import EpisodeOrigin, MakeInputs
from il_bench.files import write_whole
from il_bench.protocol import ACTION_HIGH, ACTION_LOW, BLOCK_SIZE, MAX_STEPS, SUCCESS_COVERAGE
from il_bench.pusht.expert import Expert
from il_bench.pusht.simulator import Simulator
from il_bench.rollout import Policy, run_block

#: How much of the disturbance of a step is left in the next.
NOISE_COEFFICIENT = 0.9
# Second word of an episode's seed sequence, so that no two of its random numbers are the same stream.
NOISE_STREAM, TAKEOVER_STREAM = 1, 2
_ORIGINS = TypeAdapter(list[EpisodeOrigin])


@dataclass(frozen=True)
class Recording:
    """The T steps of one demonstration, or of several, one after the other."""

    agent: NDArray[np.float64]  # (T, 2) px, before each action
    pose: NDArray[np.float64]  # (T, 3), the block's `[x, y, angle]` before each action
    action: NDArray[np.float32]  # (T, 2) px, what the expert said
    coverage: NDArray[np.float64]  # (T,), after each action

    @property
    def success(self) -> bool:
        """Whether the last step solved the task."""
        return bool(self.coverage[-1] > SUCCESS_COVERAGE)

    @staticmethod
    def concatenate(recordings: "Sequence[Recording]") -> "Recording":
        """Put recordings one after the other; none give one of no frames."""
        empty = Recording(np.zeros((0, 2)), np.zeros((0, 3)), np.zeros((0, 2), np.float32), np.zeros(0))
        parts = [empty, *recordings]
        return Recording(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(empty)))


class Noise:
    """Disturbs what is executed.

    The way from the agent to the target is turned by an angle (radians) and stretched by exp(scale), two
    AR(1) processes with the stationary standard deviation `size`, in which they start. At 0 targets pass
    unchanged to the bit. seed: of the episode.
    """

    def __init__(self, size: float, seed: int) -> None:
        self._size, self._rng = size, stream(seed, NOISE_STREAM)
        self._state = size * self._rng.standard_normal(2)

    def __call__(self, agent: NDArray[np.float64], action: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is executed, (2,) px in [0, 512], where the expert at `agent` said `action`."""
        if self._size == 0.0:
            return action
        angle, scale = self._state.tolist()
        innovation = self._size * math.sqrt(1.0 - NOISE_COEFFICIENT**2) * self._rng.standard_normal(2)
        self._state = NOISE_COEFFICIENT * self._state + innovation
        x, y = (math.exp(scale) * (action - agent)).tolist()
        cos, sin = math.cos(angle), math.sin(angle)
        turned = np.array([x * cos - y * sin, x * sin + y * cos])
        return np.asarray(np.clip(agent + turned, ACTION_LOW, ACTION_HIGH))


def stream(seed: int, which: int) -> np.random.Generator:
    """The random numbers of one episode for one use."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, which])))


def record(simulator: Simulator, expert: Expert, noise: Noise) -> Recording:
    """Let the expert go on from where the simulator stands, until it is solved or for 300 steps.

    Actions are rounded to float32 before they are executed: without noise, replaying the recorded ones gives
    the recorded frames to the bit.
    """
    frames = []
    expert.reset()
    for _ in range(MAX_STEPS):
        agent = np.array([simulator.agent_x, simulator.agent_y])
        pose = np.array([simulator.block_x, simulator.block_y, simulator.block_angle])
        action = expert.act(agent.copy(), pose.copy()).astype(np.float32)
        x, y = noise(agent, action.astype(np.float64)).tolist()
        simulator.step(x, y)
        frames.append((agent, pose, action, simulator.coverage()))
        if frames[-1][-1] > SUCCESS_COVERAGE:
            break
    return Recording(*(np.array(column) for column in zip(*frames, strict=True)))


class _ActionRecorder:
    """Keeps a policy's actions; after `limit` steps it asks the policy no more and lets the agents hold."""

    def __init__(self, policy: Policy, limit: int) -> None:
        self._policy, self._limit = policy, limit
        self.reset, self.camera = policy.reset, getattr(policy, "camera", None)
        self.actions: list[torch.Tensor] = []

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if len(self.actions) == self._limit:
            return batch["observation.state"]
        self.actions.append(self._policy.select_action(batch))
        return self.actions[-1]


def drive(
    policy: Policy, seeds: NDArray[np.int64], takeover_max: int, only_unsolved: bool
) -> dict[int, NDArray[np.float32]]:
    """Let the policy drive each episode, as in an evaluation, for 0 .. takeover_max steps, drawn uniformly.

    If the policy has solved the task by then, the number is drawn again, from the steps before that; or, with
    `only_unsolved`, the episode is left out wherever the policy solves it within takeover_max steps.

    seeds: (n,) rising, all of one block of BLOCK_SIZE. Returns each one's actions, (takeover, 2) px.
    """
    recorder = _ActionRecorder(policy, takeover_max)
    outcomes = run_block(recorder, seeds)
    actions = [action.to("cpu", torch.float32).numpy() for action in recorder.actions]
    driven = np.stack(actions) if actions else np.zeros((0, BLOCK_SIZE, 2), np.float32)  # (T, block, 2)
    drives = {}
    for episode in outcomes.to_records():
        seed, n_steps = episode["seed"], episode["n_steps"]
        solved_at = n_steps if episode["success"] and n_steps <= takeover_max else None
        if solved_at is None or not only_unsolved:
            drives[seed] = driven[: draw_takeover(seed, takeover_max, solved_at), seed % BLOCK_SIZE]
    return drives


def draw_takeover(seed: int, takeover_max: int, solved_at: int | None) -> int:
    """After how many steps the expert takes over: 0 .. takeover_max, and before `solved_at` if given."""
    rng = stream(seed, TAKEOVER_STREAM)
    step = int(rng.integers(takeover_max + 1))
    return step if solved_at is None or step < solved_at else int(rng.integers(solved_at))


@dataclass(frozen=True)
class RecordedBlock:
    """The episodes of some seeds, in seed order, and the frames of those that succeeded."""

    episodes: list[EpisodeOrigin]
    frames: Recording

    def save(self, path: Path) -> None:
        """Write it to a .npz file, whole. Raises OSError if it cannot be written."""
        content, episodes = io.BytesIO(), _ORIGINS.dump_json(self.episodes).decode()
        np.savez(content, allow_pickle=False, **vars(self.frames), episodes=np.array(episodes))
        write_whole(path, content.getvalue())

    @staticmethod
    def load(path: Path) -> "RecordedBlock":
        """Read what `save` wrote."""
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            frames = Recording(*(arrays[name] for name in Recording.__dataclass_fields__))
            return RecordedBlock(_ORIGINS.validate_json(str(arrays["episodes"])), frames)

    @staticmethod
    def is_whole(path: Path) -> bool:
        """Whether `load` can read the file: it is there, and not damaged."""
        try:
            return bool(RecordedBlock.load(path))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # pydantic's is a ValueError
            return False


def block_path(folder: Path, seeds: Sequence[int]) -> Path:
    """Where the episodes of a block of seeds are kept."""
    return folder / f"block-{seeds[0]:06d}.npz"


class Recorder:
    """Records the episodes of blocks of seeds: the expert, and before it the policy if there is one.

    from_policy: as `load_policy` takes it. folder: where finished blocks are kept.
    """

    def __init__(self, inputs: MakeInputs, from_policy: str | None, folder: Path) -> None:
        self._inputs, self._folder = inputs, folder
        self._expert, self._policy = Expert(), None
        if from_policy is not None:
            from il_bench.policies.checkpoint import load_policy

            self._policy = load_policy(from_policy)

    def write(self, seeds: Sequence[int]) -> int:
        """Record a block into its file; if a policy drives, all seeds are of one BLOCK_SIZE."""
        episodes, kept = [], []
        for seed, driven in self._drives(seeds).items():
            simulator = Simulator()
            simulator.reset(seed)
            for x, y in driven.astype(np.float64).tolist():  # to where the policy left it, velocity included
                simulator.step(x, y)
            recording = record(simulator, self._expert, Noise(self._inputs.noise, seed))
            origin = EpisodeOrigin(
                seed=seed,
                steps=len(recording.action),
                max_coverage=float(recording.coverage.max()),
                success=recording.success,
                noise=self._inputs.noise,
                takeover=None if self._policy is None else len(driven),
            )
            episodes.append(origin)
            if recording.success:
                kept.append(recording)
        RecordedBlock(episodes, Recording.concatenate(kept)).save(block_path(self._folder, seeds))
        return len(seeds)

    def _drives(self, seeds: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        settings = self._inputs.policy
        if self._policy is None or settings is None:
            return dict.fromkeys(seeds, np.zeros((0, 2), np.float32))
        return drive(self._policy, np.array(seeds), settings["takeover_max"], settings["only_unsolved"])
