"""The options of pytest that il_bench adds, and the values they may take.

Read by every pytest run of everybody who has il_bench installed: standard library only.
"""

from typing import Any

from il_bench.protocol import DEFAULT_EPISODES, MAX_EPISODES, SEED_STARTS, TRACKS

LATENCY = ("short", "full")
GROUP = "il_bench, the benchmark of imitation-learning policies on PushT"
ALIAS_HELP = "Short for --il-benchmark (set IL_BENCH_NO_ALIAS=1 if your project has its own --benchmark)."


def _option(flag: str, explained: str, **keywords: Any) -> tuple[str, dict[str, Any]]:
    return flag, {"help": " ".join(explained.split()), **keywords}


OPTIONS = (
    _option(
        "--il-benchmark",
        """Run the benchmark: roll the policies out in PushT, compare them with baselines.json, print a table
        and write a report. Adds the suite il_bench.suite unless you name files to run, and runs tests marked
        success, throughput or latency, which are skipped otherwise.""",
        action="store_true",
    ),
    _option(
        "--il-policy",
        """The policy to evaluate; repeat it for several. An embedded one by name (act, vqbet, ..., expert), a
        LeRobot pretrained_model folder, or a Hub id. act=PATH compares the checkpoint in PATH with the
        targets and the baseline of act. Default: every embedded policy.""",
        action="append",
        default=None,
        metavar="NAME|PATH|HUB_ID",
    ),
    _option(
        "--il-track",
        """What policies see: the block's 16 keypoints and the agent, or a 96x96 image and the agent.
        Default: keypoints.""",
        choices=TRACKS,
        default="keypoints",
    ),
    _option(
        "--il-device",
        """Where policies run: cpu, cuda, cuda:N or mps. Results of different devices differ a little.
        Default: cpu.""",
        default="cpu",
        metavar="DEVICE",
    ),
    _option(
        "--il-seeds",
        """Start states: test (seeds 200000 to 200999, for numbers you report) or validation (100000 to
        100999, for choosing checkpoints and settings). Default: test.""",
        choices=tuple(SEED_STARTS),
        default="test",
    ),
    _option(
        "--il-episodes",
        f"""Roll out so many episodes a policy, 1 to {MAX_EPISODES}. Default: as many as its gates need to be
        decided, up to their cap; {DEFAULT_EPISODES} for a policy without a gate, {MAX_EPISODES} with
        --il-update-baselines.""",
        type=int,
        default=None,
        metavar="N",
    ),
    _option(
        "--il-target",
        """Require this of every selected policy, instead of the targets in baselines.json: for example
        success_rate=0.8 or mean_max_reward=0.9. A policy without a target is NOT GATED.""",
        action="append",
        default=None,
        metavar="METRIC=VALUE",
    ),
    _option(
        "--il-latency",
        """How thoroughly latency is measured. short: about a minute for the embedded policies, eager only;
        slow calls give too few samples for p90 or p99, which are then left out. full: 5 to 15 seconds a row,
        also torch.compile, CUDA graphs where the device has them, and every sampler at batch 64. Default:
        short.""",
        choices=LATENCY,
        default="short",
    ),
    _option(
        "--il-sampler",
        """Time diffusion policies also with this sampler and number of inference steps, such as DDIM-16;
        repeat it for several. DDPM-100 and DDIM-10 are timed anyway.""",
        action="append",
        default=None,
        metavar="DDPM-N|DDIM-N",
    ),
    _option(
        "--il-compare",
        """Time every selected policy in several processes and compare it with the run whose report.json FILE
        is: faster, slower, equivalent within 10 %%, or inconclusive. Slower fails the run where the machine
        is the same, else it is only reported, with what differs. Two versions on one machine are compared far
        more sharply by the command il-bench compare, which runs both in turns.""",
        default=None,
        metavar="FILE",
    ),
    _option(
        "--il-keep-blocks",
        "Time as --il-compare does, and keep the times in report.json for a later --il-compare.",
        action="store_true",
    ),
    _option(
        "--il-workers",
        """Processes that roll episodes out; the results do not depend on it. Default: one a core, and 1 under
        pytest-xdist.""",
        type=int,
        default=None,
        metavar="N",
    ),
    _option(
        "--il-baselines",
        "Targets and measured baselines to compare with. Default: the baselines.json of il_bench.",
        default=None,
        metavar="FILE",
    ),
    _option(
        "--il-update-baselines",
        """Make the results of this run the new measured baselines: rewrites the baselines file at the end,
        only for policies that ran all their test seeds, and says what changed. Targets stay.""",
        action="store_true",
    ),
    _option(
        "--il-report",
        "Folder for report.json, its plot and its page. Default: il-bench-report.",
        default="il-bench-report",
        metavar="DIR",
    ),
    _option(
        "--il-resume",
        """Go on after an interrupted run: take finished episodes from the journal in the report folder
        instead of rolling them out again; a journal of another checkpoint or environment is an error.""",
        action="store_true",
    ),
)
