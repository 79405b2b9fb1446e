"""Let the expert solve PushT from many start states, and write the episodes as a LeRobotDataset."""

import shlex
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from il_bench import machine
from il_bench.data.convert import outcome_columns, place_columns, write_columns
from il_bench.demos import provenance
from il_bench.demos.compact import compact
from il_bench.demos.halfmade import Block, Halfmade, join, opened
from il_bench.demos.maker import Maker, load_maker
from il_bench.demos.provenance import Episode, Made, Part, Provenance
from il_bench.errors import IlBenchError
from il_bench.files import write_whole
from il_bench.protocol import BLOCK_SIZE, MAX_STEPS
from il_bench.pusht.geometry import block_keypoints
from il_bench.rollout import executors

LAST_SEED = 99_999  # seeds above are for evaluations
TAKEOVER_MAX = 200
MAX_NOISE = 1.0
# Episodes of one task without a policy. With one it is the policy's block, whose size decides its numbers.
_TASK_SIZE = 10


@dataclass(frozen=True)
class Summary:
    """What came out: the dataset's folder and its provenance."""

    output: Path
    provenance: Provenance

    @property
    def left_out(self) -> list[Episode]:
        """The episodes that the expert did not solve, which are not in the data."""
        return [episode for part in self.provenance.parts for episode in part.left_out]


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
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write the expert's episodes as a LeRobotDataset into the new folder `output`.

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
    made = _made(episodes, seed, noise, from_policy, takeover_max, only_unsolved)
    if (finished := _finished(output, made)) is not None:
        return finished
    with opened(output, made) as halfmade:
        if (finished := _finished(output, made)) is not None:  # another process was faster
            halfmade.remove()
            return finished
        blocks = _blocks(halfmade, made, from_policy, workers, on_progress)
        found = _provenance(blocks, made, _command(made, from_policy))
        _write(halfmade.folder, output, blocks, found)
        halfmade.remove()
    return Summary(output, found)


def _check(episodes: int, seed: int, noise: float, takeover_max: int, workers: int) -> None:
    for name, value, low, high in (
        ("episodes", episodes, 1, LAST_SEED + 1),
        ("noise", noise, 0.0, MAX_NOISE),
        ("takeover_max", takeover_max, 0, MAX_STEPS),
        ("workers", workers, 1, 1024),
    ):
        if not low <= value <= high:
            raise IlBenchError(f"{name} is {value}; it must be within {low} .. {high}")
    last = seed + episodes - 1
    if seed < 0 or last > LAST_SEED:
        raise IlBenchError(
            f"seeds {seed} .. {last}: demonstrations use seeds 0 .. {LAST_SEED} only, those above are for "
            "evaluations; choose another seed or fewer episodes"
        )


def _made(
    episodes: int,
    seed: int,
    noise: float,
    from_policy: str | None,
    takeover_max: int,
    only_unsolved: bool,
) -> Made:
    policy = None
    if from_policy is not None:
        from il_bench.policies.checkpoint import load_policy

        loaded = load_policy(from_policy)
        policy = {
            "name": loaded.name,
            "sha256": loaded.sha256,
            "takeover_max": takeover_max,
            "only_unsolved": only_unsolved,
        }
    return Made(
        episodes=episodes,
        seed=seed,
        noise=float(noise),
        expert=provenance.expert_sha256(),
        policy=policy,
        fingerprint=machine.fingerprint(),
    )


def _command(made: Made, from_policy: str | None) -> str:
    words = ["il-bench demos make", f"--episodes {made.episodes}", f"--seed {made.seed}"]
    if made.noise:
        words.append(f"--noise {made.noise!r}")
    if made.policy is not None and from_policy is not None:
        words += [
            f"--from-policy {shlex.quote(from_policy)}",
            f"--takeover-max {made.policy['takeover_max']}",
        ]
        if made.policy["only_unsolved"]:
            words.append("--only-unsolved")
    return " ".join(words)


def _finished(output: Path, made: Made) -> Summary | None:
    """What the same call has made before, None if `output` is free."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    found = provenance.read(output) if output.is_dir() else None
    if found is None or len(found.parts) != 1 or found.parts[0].made is None:
        raise IlBenchError(
            f"{output}: is there already and was not made by this command; give another --output"
        )
    if differing := found.parts[0].made.differences(made):
        raise IlBenchError(
            f"{output}: made by another command already ({', '.join(differing)}); give another --output"
        )
    return Summary(output, found)


def _blocks(
    halfmade: Halfmade,
    made: Made,
    from_policy: str | None,
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> list[Block]:
    """All blocks in seed order: those that are there, and the others, made and kept."""
    tasks = _tasks(made)
    found = {task[0]: block for task in tasks if (block := halfmade.recall(task[0])) is not None}
    missing = [task for task in tasks if task[0] not in found]

    def progress() -> None:
        if on_progress is not None:
            on_progress(sum(len(task) for task in tasks if task[0] in found), made.episodes)

    progress()
    executor = executors.choose(workers, len(missing))
    load = partial(load_maker, made, from_policy)
    with closing(executor.run(load, Maker.make, missing, name=_name)) as results:
        for first, block in results:
            halfmade.keep(first, block)
            found[first] = block
            progress()
    return [found[task[0]] for task in tasks]


def _tasks(made: Made) -> list[list[int]]:
    """The seeds, in runs that one worker makes together."""
    size = _TASK_SIZE if made.policy is None else BLOCK_SIZE
    seeds = range(made.seed, made.seed + made.episodes)
    return [list(group) for _, group in groupby(seeds, key=lambda seed: seed // size)]


def _name(task: list[int]) -> str:
    return f"seeds {task[0]}-{task[-1]}"


def _write(folder: Path, output: Path, blocks: list[Block], found: Provenance) -> None:
    """Write the dataset beside the blocks, and move it to its place when it is whole."""
    frames = join([block.frames for block in blocks])
    steps = [episode.steps for episode in found.episodes if episode is not None]
    ends = np.cumsum(np.array(steps, np.int64))
    columns = {
        "observation.state": frames.agent.astype(np.float32),
        "observation.environment_state": block_keypoints(frames.pose).astype(np.float32),
        "action": frames.action,
        **outcome_columns(frames.coverage, ends),
        **place_columns(ends),
    }
    whole = folder / output.name
    try:
        shutil.rmtree(whole, ignore_errors=True)  # of a run that was killed while it wrote
        write_columns(columns, ends, whole)
        compact(whole)
        write_whole(whole / provenance.FILE, provenance.to_bytes(found))
        whole.rename(output)
    except OSError as error:
        raise IlBenchError(
            f"{output}: cannot be written ({error.strerror}); make room and repeat the command, finished "
            "episodes are kept"
        ) from error


def _provenance(blocks: list[Block], made: Made, command: str) -> Provenance:
    episodes = [episode for block in blocks for episode in block.episodes]
    kept = [episode for episode in episodes if episode.success]
    left_out = [episode for episode in episodes if not episode.success]
    if not episodes:
        raise IlBenchError(
            f"the policy solved all {made.episodes} episodes itself, so there is nothing to write; give it "
            "more episodes, or leave out --only-unsolved"
        )
    if not kept:
        raise IlBenchError(
            f"the expert solved none of {len(episodes)} episodes, so there is nothing to write; use less "
            f"noise than {made.noise:g}"
        )
    part = Part(n_episodes=len(kept), command=command, made=made, left_out=left_out)
    return Provenance(parts=[part], episodes=list(kept))
