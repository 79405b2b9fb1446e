"""Record demonstrations: a policy may drive first, then the expert takes over and is recorded.

A policy that drives first is DAgger (Ross et al. 2011): the expert shows what to do in states that the policy
reaches. Disturbing what is executed, but not what is recorded, is DART (Laskey et al. 2017).
"""

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from il_bench.demos.provenance import EpisodeOrigin, MakeInputs
from il_bench.files import write_whole
from il_bench.protocol import ACTION_HIGH, ACTION_LOW, MAX_STEPS, SUCCESS_COVERAGE
from il_bench.pusht.expert import Expert
from il_bench.pusht.simulator import Simulator
from il_bench.rollout import Policy, run_block
from il_bench.rollout.blocks import size_of

#: How much of the disturbance of a step is left in the next.
NOISE_COEFFICIENT = 0.9
# Second word of an episode's seed sequence: noise and takeover have random streams of their own.
NOISE_STREAM, TAKEOVER_STREAM = 1, 2
_ORIGINS = TypeAdapter(list[EpisodeOrigin])


@dataclass(frozen=True)
class Recording:
    """The T steps of one demonstration, or of several, one after the other."""

    agent: NDArray[np.float64]  # (T, 2) px, before each action
    pose: NDArray[np.float64]  # (T, 3), the block's `[x, y, angle]` before each action
    action: NDArray[np.float32]  # (T, 2) px, the expert's, undisturbed
    coverage: NDArray[np.float64]  # (T,), after each action

    @property
    def success(self) -> bool:
        """Whether the last step solved PushT."""
        return bool(self.coverage[-1] > SUCCESS_COVERAGE)

    @staticmethod
    def concatenate(recordings: "Sequence[Recording]") -> "Recording":
        """Put recordings one after the other; without any, there are no frames."""
        empty = Recording(np.zeros((0, 2)), np.zeros((0, 3)), np.zeros((0, 2), np.float32), np.zeros(0))
        parts = [empty, *recordings]
        return Recording(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(empty)))


class Noise:
    """Disturbs the actions of one episode.

    The way from the agent to the target is turned by an angle (radians) and stretched by exp(scale). Both are
    stationary AR(1) processes with standard deviation `size`. At 0, actions pass unchanged to the bit.
    """

    def __init__(self, size: float, seed: int) -> None:
        self._size, self._rng = size, stream(seed, NOISE_STREAM)
        self._state = size * self._rng.standard_normal(2)

    def __call__(self, agent: NDArray[np.float64], action: NDArray[np.float64]) -> NDArray[np.float64]:
        """The action to execute, (2,) px in [0, 512], for the expert's `action` at `agent`."""
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
    """One of an episode's streams of random numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, which])))


def record(simulator: Simulator, expert: Expert, noise: Noise) -> Recording:
    """Let the expert act from the simulator's state until PushT is solved, for at most 300 steps.

    Actions are rounded to float32 before they are executed, so that without noise a replay of the recorded
    ones gives the recorded frames to the bit.
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
    """Keeps a policy's actions. After `limit` steps it stops asking the policy; the agents stay."""

    def __init__(self, policy: Policy, limit: int) -> None:
        self._policy, self._limit = policy, limit
        self.reset, self.camera = policy.reset, getattr(policy, "camera", None)
        self.rolling_out = getattr(policy, "rolling_out", nullcontext)
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

    If the policy has solved PushT by then, the number is drawn again, from the steps before that. With
    `only_unsolved`, episodes that the policy solves within takeover_max steps are left out.

    seeds: (n,) rising, all of one of the policy's blocks. Returns each episode's actions, (takeover, 2) px.
    """
    recorder, size = _ActionRecorder(policy, takeover_max), size_of(policy)
    outcomes = run_block(recorder, seeds)
    actions = [action.to("cpu", torch.float32).numpy() for action in recorder.actions]
    driven = np.stack(actions) if actions else np.zeros((0, size, 2), np.float32)  # (T, block, 2)
    drives = {}
    for episode in outcomes.to_records():
        seed, n_steps = episode["seed"], episode["n_steps"]
        solved_at = n_steps if episode["success"] and n_steps <= takeover_max else None
        if solved_at is None or not only_unsolved:
            drives[seed] = driven[: draw_takeover(seed, takeover_max, solved_at), seed % size]
    return drives


def draw_takeover(seed: int, takeover_max: int, solved_at: int | None) -> int:
    """Draw after how many steps the expert takes over: 0 .. takeover_max, and before `solved_at` if given."""
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
        """Whether the file exists and is not damaged."""
        try:
            return bool(RecordedBlock.load(path))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # pydantic's is a ValueError
            return False


def block_path(folder: Path, seeds: Sequence[int]) -> Path:
    """Where the episodes of a block of seeds are kept."""
    return folder / f"block-{seeds[0]:06d}.npz"


class Recorder:
    """Records blocks of episodes: the expert, and before it the policy that `load` gives, if any."""

    def __init__(self, inputs: MakeInputs, load: Callable[[], Policy] | None) -> None:
        self._inputs, self._expert = inputs, Expert()
        self._policy = None if load is None else load()

    def record(self, seeds: Sequence[int]) -> "tuple[Sequence[int], RecordedBlock]":
        """Return the seeds and their episodes; if a policy drives, they are of one of its blocks."""
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
        return seeds, RecordedBlock(episodes, Recording.concatenate(kept))

    def _drives(self, seeds: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        settings = self._inputs.policy
        if self._policy is None or settings is None:
            return dict.fromkeys(seeds, np.zeros((0, 2), np.float32))
        return drive(self._policy, np.array(seeds), settings["takeover_max"], settings["only_unsolved"])
