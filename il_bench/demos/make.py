"""Let the expert solve PushT from many start states, and write the episodes as a LeRobotDataset."""

import shlex
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from il_bench import machine
from il_bench.data.convert import compact, outcome_columns, place_columns, write_columns
from il_bench.demos import provenance
from il_bench.demos.output import OnProgress, make_once, run_missing
from il_bench.demos.provenance import MakeInputs, Part, Provenance
from il_bench.demos.recording import RecordedBlock, Recorder, Recording, block_path
from il_bench.errors import IlBenchError
from il_bench.files import given_path
from il_bench.protocol import KEYPOINTS, LAST_TRAINING_SEED, MAX_STEPS, block_size
from il_bench.pusht.geometry import block_keypoints
from il_bench.rollout.executors import Executor

TAKEOVER_MAX = 200
MAX_NOISE = 1.0
# Seeds that are recorded together without a policy; with one, its block, whose size decides its episodes.
_BLOCK_WITHOUT_POLICY = 10


def make_demos(
    output: str | Path,
    *,
    episodes: int,
    seed: int = 0,
    noise: float = 0.0,
    from_policy: str | None = None,
    takeover_max: int = TAKEOVER_MAX,
    only_unsolved: bool = False,
    workers: int = 1,
    executor: str | Executor | None = None,
    on_progress: OnProgress | None = None,
) -> Provenance:
    """Write the expert's episodes as a LeRobotDataset into the new folder `output`; return its provenance.

    The data depend on the arguments up to `only_unsolved`, on the expert and on the versions, all noted in
    the provenance; not on the number of workers or on interruptions. After an interruption, the same call
    resumes. Episodes that the expert does not solve within 300 steps are left out, and listed there.

    Args:
        output: a folder that does not exist yet, or that the same call made.
        episodes, seed: start states of the seeds seed .. seed + episodes - 1, all within 0 .. 99999.
        noise: how much the executed actions are disturbed; the expert's own are recorded (DART).
        from_policy: a policy as `load_policy` takes it; it drives first, and the expert is recorded from when
            it takes over (DAgger).
        takeover_max: the expert takes over after 0 .. takeover_max steps, drawn for each episode.
        only_unsolved: leave out the episodes that the policy solves within takeover_max steps.
        workers: number of processes.
        executor: where they are, see `rollout`.

    Raises IlBenchError if an argument is out of range, `output` holds something else, the policy cannot be
    loaded or misbehaves, the policy left nothing to do, or the expert solved nothing.
    """
    output = given_path(output).resolve()
    _check(episodes, seed, noise, takeover_max, workers)
    policy, load, track, size = None, None, KEYPOINTS, _BLOCK_WITHOUT_POLICY
    if from_policy is not None:
        from il_bench.policies.checkpoint import load_policy

        loaded = load_policy(from_policy)
        settings = {"takeover_max": takeover_max, "only_unsolved": only_unsolved}
        policy = {"name": loaded.name, "sha256": loaded.sha256, **settings}
        load = loaded.copies() or partial(load_policy, from_policy)
        track, size = loaded.track, block_size(loaded.track)
    inputs = MakeInputs(
        episodes=episodes,
        seed=seed,
        noise=float(noise),
        expert=provenance.pusht_sha256(),
        policy=policy,
        fingerprint=machine.fingerprint(track=track),
    )
    blocks = [list(group) for _, group in groupby(range(seed, seed + episodes), lambda one: one // size)]

    def write(folder: Path, whole: Path) -> None:
        def keep(recorded: tuple[Sequence[int], RecordedBlock]) -> int:
            seeds, block = recorded
            block.save(block_path(folder, seeds))
            return len(seeds)

        run_missing(
            partial(Recorder, inputs, load),
            Recorder.record,
            blocks,
            lambda seeds: RecordedBlock.is_whole(block_path(folder, seeds)),
            keep,
            workers=workers,
            executor=executor,
            on_progress=on_progress,
            name="seeds",
        )
        recorded = [RecordedBlock.load(block_path(folder, seeds)) for seeds in blocks]
        _write(whole, recorded, _provenance(recorded, inputs, _command(inputs, from_policy)))

    make_once(output, inputs, write)
    return provenance.read(output)


def _check(episodes: int, seed: int, noise: float, takeover_max: int, workers: int) -> None:
    for name, value, low, high in (
        ("episodes", episodes, 1, LAST_TRAINING_SEED + 1),
        ("noise", noise, 0.0, MAX_NOISE),
        ("takeover_max", takeover_max, 0, MAX_STEPS),
        ("workers", workers, 1, 1024),
    ):
        if not low <= value <= high:
            raise IlBenchError(f"{name} is {value}; it must be within {low} .. {high}")
    last = seed + episodes - 1
    if seed < 0 or last > LAST_TRAINING_SEED:
        raise IlBenchError(
            f"seeds {seed} .. {last}: demonstrations use seeds 0 .. {LAST_TRAINING_SEED} only; those above "
            "are for evaluations; choose another seed or fewer episodes"
        )


def _command(inputs: MakeInputs, from_policy: str | None) -> str:
    words = f"il-bench demos make --episodes {inputs.episodes} --seed {inputs.seed}"
    if inputs.noise:
        words += f" --noise {inputs.noise!r}"
    if inputs.policy is not None and from_policy is not None:
        words += f" --from-policy {shlex.quote(from_policy)} --takeover-max {inputs.policy['takeover_max']}"
        words += " --only-unsolved" if inputs.policy["only_unsolved"] else ""
    return words


def _provenance(blocks: list[RecordedBlock], inputs: MakeInputs, command: str) -> Provenance:
    episodes = [episode for block in blocks for episode in block.episodes]
    kept = [episode for episode in episodes if episode.success]
    left_out = [episode for episode in episodes if not episode.success]
    if not episodes:
        raise IlBenchError(
            f"the policy solved all {inputs.episodes} episodes itself, so there is nothing to write; give it "
            "more episodes, or leave out --only-unsolved"
        )
    if not kept:
        raise IlBenchError(
            f"the expert solved none of {len(episodes)} episodes, so there is nothing to write; use less "
            f"noise than {inputs.noise:g}"
        )
    part = Part(n_episodes=len(kept), command=command, made=inputs, left_out=left_out)
    return Provenance(parts=[part], episodes=list(kept))


def _write(root: Path, blocks: list[RecordedBlock], found: Provenance) -> None:
    frames = Recording.concatenate([block.frames for block in blocks])
    steps = [episode.steps for episode in found.episodes if episode is not None]
    ends = np.cumsum(np.array(steps, np.int64))
    columns = {
        "observation.state": frames.agent.astype(np.float32),
        "observation.environment_state": block_keypoints(frames.pose).astype(np.float32),
        "action": frames.action,
        **outcome_columns(frames.coverage, ends),
        **place_columns(ends),
    }
    write_columns(columns, ends, root)
    compact(root)
    provenance.write(root, found)
