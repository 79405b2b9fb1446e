"""The options of a pytest run, each declared once, and their checked values.

Every pytest run loads this module where il_bench is installed: standard library only.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from il_bench.errors import IlBenchError
from il_bench.machine import Numerics
from il_bench.plugin import choices, options
from il_bench.plugin.choices import PolicyChoice
from il_bench.plugin.options import Invocation, Option, option
from il_bench.protocol import (
    DEFAULT_EPISODES,
    MAX_EPISODES,
    MAX_RATE_EPISODES,
    RECORD,
    SEED_STARTS,
    TRACKS,
    Autocast,
    ExecutorName,
)

SUITE = Path(__file__).parents[1] / "suite"
#: What its modules measure, in the order in which they run: what is asked first comes first.
STAGES = ("success", "stress", "tokenizers", "throughput", "latency", "comparison")
#: What --il-thorough adds.
THOROUGH = "tokenizers that train, every batch size, calls without processing, fresh processes, full latency"
THOROUGH_TAKES = "about nine minutes instead of one minute, with the shipped policies on two cores"


@dataclass(frozen=True)
class Settings:
    """The checked options of one run, in the order of `pytest --help`."""

    benchmark: bool = option(
        "--il-benchmark",
        """Run the benchmark: roll the policies out in PushT, compare them with baselines.json, print a table
        and write a report. Adds the suite il_bench.suite unless you name files to run, and runs tests marked
        success, throughput or latency, which are skipped otherwise. --benchmark is short for it (unless
        IL_BENCH_NO_ALIAS=1 is set, or your project has an option of that name).""",
        action="store_true",
    )
    chosen: tuple[PolicyChoice, ...] = option(
        "--il-policy",
        """The policy to evaluate; repeat it for several. A shipped one by name (act, vqbet, ..., expert), a
        LeRobot pretrained_model folder, or a Hub id. act=PATH compares the checkpoint in PATH with the
        targets and the baseline of act. Default: every shipped policy.""",
        lambda given, run: choices.named(given, run.option("il_track"), run.folder, run.project_policies),
        action="append",
        metavar="NAME|PATH|HUB_ID",
    )
    track: str = option(
        "--il-track",
        """What policies see: the block's 16 keypoints and the agent, or a 96x96 image and the agent.
        Default: keypoints.""",
        choices=TRACKS,
        default="keypoints",
    )
    device: str = option(
        "--il-device",
        """Where policies run: cpu, cuda, cuda:N or mps. Results of different devices differ a little.
        Default: cpu.""",
        options.check_device,
        default="cpu",
        metavar="DEVICE",
    )
    autocast: str | None = option(
        "--il-autocast",
        """Compute the matrix products of the policies' networks in this type. Their episodes change, and the
        fingerprint says so. Default: as they were saved.""",
        choices=tuple(map(str, Autocast)),
    )
    compiled: bool = option(
        "--il-compile",
        """Compile the policies' networks with torch.compile, which needs a C++ compiler, and some time in
        each worker. Their episodes change, and the fingerprint says so.""",
        options.check_compile,
        action="store_true",
    )
    seeds: str = option(
        "--il-seeds",
        """Start states: test (seeds 200000 to 200999, for numbers you report) or validation (100000 to
        100999, for choosing checkpoints and settings). Default: test.""",
        choices=tuple(SEED_STARTS),
        default="test",
    )
    episodes: int | None = option(  # None: as many as the gates need
        "--il-episodes",
        f"""How many episodes to roll out for each policy, 1 to {MAX_EPISODES}, or with test seeds up to
        {MAX_RATE_EPISODES}. Gates look at the first {MAX_EPISODES} only. Default: until its
        gates are decided, or up to their cap; {DEFAULT_EPISODES} for a policy without a gate, {MAX_EPISODES}
        with --il-update-baselines.""",
        options.check_episodes,
        type=int,
        metavar="N",
    )
    target: tuple[str, float] | None = option(
        "--il-target",
        """Require this of every selected policy, instead of the targets in baselines.json: for example
        success_rate=0.8 or mean_max_reward=0.9. A policy without a target is NOT GATED.""",
        options.check_target,
        action="append",
        metavar="METRIC=VALUE",
    )
    thorough: bool = option(
        "--il-thorough",
        f"""Also measure what takes long: {THOROUGH}. A run of the shipped policies
        on two cores then takes about nine minutes instead of one minute.""",
        action="store_true",
    )
    stress: bool = option(
        "--il-stress",
        """Also roll every policy out on the same start states with one thing changed: delayed, lost and noisy
        signals, a push, other physics, another start, a policy that keeps the robot waiting; on images their
        brightness, sharpness and so on. Takes some thirty times as long as the undisturbed episodes.""",
        action="store_true",
    )
    latency: str = option(
        "--il-latency",
        """How thoroughly to measure latency. short: less than a minute for the shipped policies, eager only;
        slow calls give too few samples for p90 or p99, which are then left out. full: 5 to 15 seconds a row;
        also torch.compile, CUDA graphs where the device has them, and every sampler at batch 64. Default:
        short, and full with --il-thorough.""",
        lambda given, run: given or ("full" if run.option("il_thorough") else "short"),
        choices=("short", "full"),
    )
    samplers: tuple[str, ...] = option(
        "--il-sampler",
        """Time diffusion policies also with this sampler and number of inference steps, such as DDIM-16;
        repeat it for several. DDPM-100 and DDIM-10 are timed anyway, unless a policy was trained on fewer
        noise levels.""",
        options.check_samplers,
        action="append",
        metavar="DDPM-N|DDIM-N",
    )
    compare: Path | None = option(
        "--il-compare",
        """Time every selected policy in several processes, and compare it with an earlier run, whose
        report.json is FILE: faster, slower, equivalent within 20 %%, or inconclusive. Slower fails the run
        if the machine is the same; otherwise it is only reported, with what differs. The command il-bench
        compare compares two versions on one machine far more sharply: it runs both alternately.""",
        options.check_compare,
        metavar="FILE",
    )
    keep_blocks: bool = option(
        "--il-keep-blocks",
        "Time as for --il-compare, and keep the times in report.json for a later --il-compare.",
        action="store_true",
    )
    workers: int = option(
        "--il-workers",
        """How many processes roll episodes out; the results do not depend on it. Default: one for each core,
        1 under pytest-xdist, and on a Ray cluster as many as it has room for.""",
        options.check_workers,
        type=int,
        metavar="N",
    )
    executor: str | None = option(
        "--il-executor",
        """Where episodes are rolled out: inline, in the process of the tests; in processes of their own; or
        by Ray, on many machines. The results do not depend on it: a machine of another kind gets nothing to
        do. Default: processes if there are two or more workers.""",
        options.check_executor,
        choices=tuple(map(str, ExecutorName)),
    )
    address: str | None = option(
        "--il-address",
        """With --il-executor ray: the cluster, as HOST:PORT, or auto for one that this machine is part of.
        Default: a cluster of this machine alone, for this run.""",
        metavar="ADDRESS",
    )
    timeout: float = option(
        "--il-timeout",
        """Give up on a policy that takes more than this many seconds for one block of 50 episodes in a worker
        process, and say how far it got. Default: 21600, six hours.""",
        options.check_timeout,
        type=float,
        default=21600.0,
        metavar="SECONDS",
    )
    baselines: Path | None = option(
        "--il-baselines",
        "Targets and measured baselines to compare with. Default: the baselines.json of il_bench.",
        options.check_baselines,
        metavar="FILE",
    )
    update_baselines: bool = option(
        "--il-update-baselines",
        """Make the results of this run the new measured baselines. At the end this rewrites the baselines
        file for policies that ran all their test seeds, and says what changed. Targets stay.""",
        action="store_true",
    )
    accept_regression: bool = option(
        "--il-accept-regression",
        """With --il-update-baselines: also record results that are shown to be worse than the baseline they
        replace.""",
        action="store_true",
    )
    report: Path = option(
        "--il-report",
        "Folder for report.json, its plot and its page. Default: il-bench-report.",
        options.check_report,
        default="il-bench-report",
        metavar="DIR",
    )
    resume: bool = option(
        "--il-resume",
        """Continue an interrupted run: take finished episodes from the journal in the report folder instead
        of rolling them out again. A journal of another checkpoint or environment is an error. A project's own
        code needs a version, see pytest_il_bench_register.""",
        action="store_true",
    )
    record: str = option(
        "--il-record",
        """Record every step of all episodes, of the failed ones or of none, so that the page can play them.
        The numbers of each episode are in report.json anyway. Default: all.""",
        choices=RECORD,
        default="all",
    )
    history: Path | None = option(
        "--il-history",
        """Add a line for this run to FILE: commit, versions, rates and latencies. The page then draws all
        runs in it, and il-bench report history lists them.""",
        options.check_history,
        metavar="FILE",
    )
    shard: tuple[int, int] | None = option(
        "--il-shard",
        """Roll out part I of N of all episodes, as one of several machines, and decide nothing. Afterwards
        il-bench merge makes one run of the report folders of all parts.""",
        options.check_shard,
        metavar="I/N",
    )
    project_policies: tuple[PolicyChoice, ...] = ()  # what `pytest_il_bench_register` added

    @property
    def numerics(self) -> Numerics:
        """How the networks of policies compute in rollouts."""
        return Numerics(self.autocast, self.compiled)

    @property
    def policies(self) -> tuple[PolicyChoice, ...]:
        """The chosen policies; by default every shipped one of the track, and the project's."""
        if self.chosen:
            return self.chosen
        return (*choices.shipped(self.track), *self.project_policies)

    @property
    def starts_over(self) -> tuple[str, ...]:
        """The policies that --il-resume rolls out anew: nothing says that their code is still the same."""
        return tuple(each.gate_name for each in self.policies if self.resume and not each.has_journal)

    @property
    def seed_range(self) -> range:
        """The seeds that a policy runs on unless its gates end the episodes."""
        return self.first_seeds(self.episodes or DEFAULT_EPISODES)

    def first_seeds(self, n: int) -> range:
        """The first `n` seeds of the selected range; IlBenchError if there are not so many."""
        start = SEED_STARTS[self.seeds]
        return range(start, start + options.at_most_all(n, "n", self.seeds))

    @property
    def header(self) -> str:
        """One line for the header of the run."""
        first, last = self.seed_range[0], self.seed_range[-1]
        workers = "1 worker" if self.workers == 1 else f"{self.workers or 'as many as fit'} workers"
        workers += f" on Ray at {self.address}" if self.address else ""
        if self.episodes is None and self.seeds == "test":
            episodes = f"seeds from {first}, episodes until a policy's gates are decided"
        else:
            episodes = f"seeds {first}-{last}, {len(self.seed_range)} episodes a policy"
        changed = "" if self.shard is None else f"shard {self.shard[0]}/{self.shard[1]}, "
        changed += f"device {self.device}"
        changed += f", autocast {self.autocast}" if self.autocast else ""
        changed += ", compiled" if self.compiled else ""
        return f"{changed}, track {self.track}, {self.seeds} {episodes}, {workers}"

    @property
    def effort(self) -> str:
        """What the run measures or leaves out, for its header."""
        if self.thorough:
            return f"thorough, with {THOROUGH}; {THOROUGH_TAKES}"
        return f"the quick part; --il-thorough adds {THOROUGH}; {THOROUGH_TAKES}"


#: The options, by the names of the settings that hold their values.
OPTIONS: dict[str, Option] = {
    each.name: each.metadata["option"] for each in fields(Settings) if "option" in each.metadata
}


def read(run: Invocation) -> Settings:
    """Check every option; an IlBenchError names the option, its value and what to write instead."""
    values = {name: each.check(run.option(each.dest), run) for name, each in OPTIONS.items()}
    settings = Settings(**values, project_policies=tuple(run.project_policies.values()))
    if settings.benchmark and not settings.policies:
        raise choices.none_shipped(settings.track)
    if settings.update_baselines:
        _check_update(settings)
    elif settings.accept_regression:
        raise IlBenchError(
            "--il-accept-regression: only --il-update-baselines records results; add that, or leave this out"
        )
    return settings


def _check_update(settings: Settings) -> None:
    if not settings.benchmark:
        raise IlBenchError("--il-update-baselines: nothing is measured without --benchmark; add it")
    if settings.seeds != "test":
        raise IlBenchError(
            f"--il-update-baselines: baselines are measured on test seeds, not on --il-seeds {settings.seeds}"
            "; leave --il-seeds out"
        )
    if settings.baselines is not None:
        return
    own = {each.gate_name for each in choices.shipped(settings.track)}
    for policy in settings.policies:
        if policy.gate_name not in own:
            raise IlBenchError(
                f"--il-update-baselines: il_bench's baselines are for its own policies, not {policy.label}; "
                "keep yours in a file of your own with --il-baselines FILE"
            )
