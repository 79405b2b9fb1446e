"""Let the expert solve PushT from many start states, and write the episodes as a LeRobotDataset."""

import shlex
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from il_bench import machine
from il_bench.data.convert import compact, outcome_columns, place_columns, write_columns
from il_bench.demos import provenance
from il_bench.demos.output import make_once
from il_bench.demos.provenance import MakeInputs, Part, Provenance
from il_bench.demos.recording import RecordedBlock, Recorder, Recording
from il_bench.errors import IlBenchError
from il_bench.protocol import BLOCK_SIZE, LAST_TRAINING_SEED, MAX_STEPS
from il_bench.pusht.geometry import block_keypoints
from il_bench.rollout import executors

TAKEOVER_MAX = 200
MAX_NOISE = 1.0
# So many seeds are recorded together without a policy. With one it is the policy's block, whose size decides
# its numbers.
_BLOCK_WITHOUT_POLICY = 10
_Progress = Callable[[int, int], None]


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
    on_progress: _Progress | None = None,
) -> Provenance:
    """Write the expert's episodes as a LeRobotDataset into the new folder `output`; return its provenance.

    The data depend on the arguments up to `only_unsolved`, on the expert and on the versions, which are all
    in the provenance; not on the number of workers or on an interruption: the same call goes on. Episodes
    that the expert does not solve within 300 steps are left out, and listed in the provenance.

    Args:
        output: a folder that is not there yet, or that the same call has made.
        episodes, seed: start states of the seeds seed .. seed + episodes - 1, all within 0 .. 99999.
        noise: size of the disturbance of what is executed; recorded is what the expert said (DART).
        from_policy: a policy as `load_policy` takes it, which drives first; recorded is what the expert does
            after it has taken over (DAgger).
        takeover_max: the takeover comes after 0 .. takeover_max steps, drawn for each episode.
        only_unsolved: leave out the episodes that the policy solves within takeover_max steps, so that the
            data hold what it cannot do.
        workers: number of processes.
        on_progress: called as `on_progress(n_done, n_episodes)`.

    Raises:
        IlBenchError: an argument is out of range, `output` is something else's, the policy cannot be loaded
            or misbehaves, the policy left nothing to do, or the expert solved nothing.
    """
    output = Path(output).expanduser().resolve()
    _check(episodes, seed, noise, takeover_max, workers)
    policy = None
    if from_policy is not None:
        from il_bench.policies.checkpoint import load_policy

        loaded = load_policy(from_policy)
        settings = {"takeover_max": takeover_max, "only_unsolved": only_unsolved}
        policy = {"name": loaded.name, "sha256": loaded.sha256, **settings}
    inputs = MakeInputs(
        episodes=episodes,
        seed=seed,
        noise=float(noise),
        expert=provenance.pusht_sha256(),
        policy=policy,
        fingerprint=machine.fingerprint(),
    )

    def write(folder: Path, whole: Path) -> None:
        blocks = _blocks(folder, inputs, from_policy, workers, on_progress)
        _write(whole, blocks, _provenance(blocks, inputs, _command(inputs, from_policy)))

    make_once(output, inputs, _inputs_of, write)
    found = provenance.read(output)
    assert found is not None
    return found


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


def _inputs_of(dataset: Path) -> MakeInputs | None:
    found = provenance.read(dataset)
    return found.parts[0].made if found is not None and len(found.parts) == 1 else None


def _command(inputs: MakeInputs, from_policy: str | None) -> str:
    words = ["il-bench demos make", f"--episodes {inputs.episodes}", f"--seed {inputs.seed}"]
    if inputs.noise:
        words.append(f"--noise {inputs.noise!r}")
    if inputs.policy is not None and from_policy is not None:
        words.append(f"--from-policy {shlex.quote(from_policy)}")
        words.append(f"--takeover-max {inputs.policy['takeover_max']}")
        if inputs.policy["only_unsolved"]:
            words.append("--only-unsolved")
    return " ".join(words)


def _blocks(
    folder: Path, inputs: MakeInputs, from_policy: str | None, workers: int, on_progress: _Progress | None
) -> list[RecordedBlock]:
    """All blocks in seed order: those that the folder holds, and the others, recorded and kept in it."""
    size = _BLOCK_WITHOUT_POLICY if inputs.policy is None else BLOCK_SIZE
    seeds = range(inputs.seed, inputs.seed + inputs.episodes)
    blocks = [list(group) for _, group in groupby(seeds, key=lambda seed: seed // size)]
    paths = {block[0]: folder / f"block-{block[0]:06d}.npz" for block in blocks}
    found = {first: known for first, path in paths.items() if (known := RecordedBlock.load(path)) is not None}
    missing = [block for block in blocks if block[0] not in found]

    def progress() -> None:
        if on_progress is not None:
            on_progress(sum(len(block) for block in blocks if block[0] in found), inputs.episodes)

    progress()
    executor = executors.choose(workers, len(missing))
    load = partial(Recorder.load, inputs, from_policy)
    with closing(executor.run(load, Recorder.record, missing, name=_name)) as results:
        for first, block in results:
            block.save(paths[first])
            found[first] = block
            progress()
    return [found[first] for first in paths]


def _name(seeds: list[int]) -> str:
    return f"seeds {seeds[0]}-{seeds[-1]}"


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
