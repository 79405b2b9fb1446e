"""The evaluation protocol: how PushT is played, from which start states, and what counts; each constant once.

Read by every pytest run of everybody who has il_bench installed: standard library only.
"""

import re
from enum import StrEnum
from pathlib import Path

from il_bench.errors import IlBenchError

#: Whose dynamics the simulator repeats to the bit.
SIMULATOR = "gym-pusht 0.1.8"
SUCCESS_COVERAGE = 0.95
#: Coverage that people's demonstrations reach. A failure that reached more is a near miss, or undone.
NEAR_COVERAGE = 0.9
#: The task in words, as LeRobot's data sets of it have it.
TASK = "Push the T-shaped blue block onto the T-shaped green target surface."
MAX_STEPS = 300
CONTROL_HZ = 10
CONTROL_PERIOD_MS = 1e3 / CONTROL_HZ
#: Side of the square world, px.
WORLD_SIZE = 512
#: An action is a place in it for the agent to go to, px.
ACTION_LOW, ACTION_HIGH = 0.0, float(WORLD_SIZE)
#: Consecutive seeds that are rolled out as one batch.
BLOCK_SIZE = 50
#: Of a policy that sees images, whose episodes take much longer.
IMAGE_BLOCK_SIZE = 10
#: A value of a fingerprint.
Scalar = str | int | float | bool | None
#: Fields of a fingerprint that say what was simulated. The others say what computed it.
EPISODE_FIELDS = ("task", "simulator", "max_steps", "success_coverage", "block_size")

KEYPOINTS, PIXELS = TRACKS = ("keypoints", "pixels")


def block_size(track: str) -> int:
    """How many consecutive seeds are rolled out as one batch on this track."""
    return IMAGE_BLOCK_SIZE if track == PIXELS else BLOCK_SIZE


MARGIN = 0.05  # a gate has to tell a policy at its target from one this far below
SEED_STARTS = {"test": 200_000, "validation": 100_000}


class SeedRange(StrEnum):
    """Validation seeds are for choosing, test seeds for the numbers you report."""

    TEST = "test"
    VALIDATION = "validation"


MAX_EPISODES = 1_000  # both ranges hold 1,000 seeds
#: Rates, and no gates, may run on past the test seeds, up to this many episodes.
MAX_RATE_EPISODES = 100_000
TEST_SEEDS = range(SEED_STARTS["test"], SEED_STARTS["test"] + MAX_EPISODES)
DEFAULT_EPISODES = 200  # for a policy without a gate
LAST_TRAINING_SEED = 99_999  # demonstrations and training use the seeds up to this one
RESERVED_SEEDS = 1_000_000  # kept for a third evaluation: nothing here ever sees them
#: Of which episodes every step is kept.
RECORD = ("none", "failures", "all")
#: The ceiling (the planner) and the floor (a policy never trained), rolled out like the others.
EXPERT, UNTRAINED = "expert", "untrained"
CONTEXT = (EXPERT, UNTRAINED)


class TimedCall(StrEnum):
    """The calls of a policy that are timed, as reports name them."""

    NEW_CHUNK = "new chunk"  # select_action with nothing queued: a prediction and its first action
    QUEUED_ACTION = "queued action"  # select_action that takes an action of an earlier prediction
    PREDICT = "predict_action_chunk"  # a prediction alone
    CONTROL_STEP = "control step"  # a prediction and all its actions, divided by their number


class ExecutorName(StrEnum):
    """Where episodes can be rolled out; `il_bench.rollout.executors.EXECUTORS` makes each."""

    INLINE = "inline"
    PROCESSES = "processes"
    RAY = "ray"


#: What reports call the first call of a process that has just begun.
FRESH_PROCESS = "fresh process"


class Autocast(StrEnum):
    """Types that the matrix products of a policy's networks can have, besides their own."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Mode(StrEnum):
    """How a policy's networks are run."""

    EAGER = "eager"
    COMPILE = "compile"
    CUDA_GRAPH = "cuda graph"


#: The environment variable that names the folder of the human demonstrations.
HUMAN_DATA = "IL_BENCH_HUMAN_DATA"
#: Where reports go without --il-report.
REPORT_FOLDER = Path("il-bench-report")
DATA_HELP = (
    "Demonstrations: 'expert', which comes with il_bench; a Hub id; a LeRobot folder; a replay buffer (.npz, "
    f".zarr); or 'human', the folder that the environment variable {HUMAN_DATA} names."
)


def data_name(source: str | Path) -> str:
    """What reports call demonstrations: their folder's or file's own name, without .npz or .zarr."""
    name = Path(source).name
    return name if name in ("", "..") else name.removesuffix(".npz").removesuffix(".zarr")


def check_sampler(sampler: str) -> tuple[str, int]:
    """The kind and the number of steps of a diffusion policy's sampler, as `DDIM-10` names them."""
    found = re.fullmatch(r"(DDPM|DDIM)-([1-9]\d*)", sampler)
    if found is None:
        raise IlBenchError(f"sampler: {sampler!r} is unknown; use DDPM-N or DDIM-N, for example DDIM-10")
    return found[1], int(found[2])
