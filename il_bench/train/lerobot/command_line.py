"""Command lines for the installed ``lerobot-train``: from a recipe, from older flags, or to resume a run."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import draccus
from draccus.utils import flatten
from lerobot.configs import PreTrainedConfig

from il_bench.errors import IlBenchError
from il_bench.files import read_json
from il_bench.machine import differences
from il_bench.train.lerobot import flags as lerobot_flags
from il_bench.train.lerobot import older_flags
from il_bench.train.lerobot.older_flags import translate
from il_bench.train.recipes import PixelRecipe

# Fields of a policy's configuration that are not hyperparameters: data, machine or Hub decide them.
NOT_PINNED = frozenset(
    (
        *("input_features", "output_features", "device", "discover_packages_path"),
        *("push_to_hub", "repo_id", "private", "tags", "license", "pretrained_path", "pretrained_revision"),
    )
)

CONFIG = Path("checkpoints/last/pretrained_model/train_config.json")
STEP = Path("checkpoints/last/training_state/training_step.json")
# Besides the policy's own fields, these must stay the same when a run is resumed.
SAME = ("steps", "batch_size", "seed", "dataset.repo_id", "dataset.use_imagenet_stats")
# These may change, and are given again.
FREE = (
    *(lerobot_flags.DISCOVER, "output_dir", "policy.device", "dataset.root", "num_workers"),
    *("log_freq", "save_freq", "env_eval_freq", "eval.n_episodes"),
)


@dataclass(frozen=True)
class CommandLine:
    """A command line of ``lerobot-train``.

    flags: by dotted name, in order. notes: sentences for the user, such as what was changed.
    """

    flags: dict[str, str]
    notes: list[str] = field(default_factory=list)

    @property
    def residual_vq_steps(self) -> int:
        """How many steps train VQ-BeT's residual VQ only; 0 for other policies."""
        policy_type = self.flags.get("policy.type")
        if policy_type not in ("vqbet", "il_vqbet"):
            return 0
        name = "n_vqvae_training_steps"
        return int(self.flags.get(f"policy.{name}") or lerobot_flags.policy_fields(policy_type)[name])

    def words(self) -> list[str]:
        """The flags as words of a command line."""
        return [f"--{name}={value}" for name, value in self.flags.items()]

    def __str__(self) -> str:
        """The command, ready to be pasted into a shell."""
        return " \\\n    ".join(["lerobot-train", *map(shlex.quote, self.words())])


def from_recipe(recipe: PixelRecipe, run: Mapping[str, str], extra: list[str]) -> CommandLine:
    """The command line of a recipe.

    ``run`` holds the flags that the recipe leaves open: data, output, seed, device. ``extra`` are flags that
    override the recipe. Raises IlBenchError if LeRobot refuses a flag or a value, or derives another
    optimizer than the recipe expects.
    """
    policy_type = str(recipe.policy.get("type"))
    fields = lerobot_flags.policy_fields(policy_type)
    discover = {lerobot_flags.DISCOVER: "il_bench.policies"} if policy_type.startswith("il_") else {}
    flags = {**discover, **recipe.flags(), "policy.push_to_hub": "false", **run}
    lerobot_flags.check_known(flags)
    _check_preset(lerobot_flags.read(flags).policy, recipe)
    flags |= lerobot_flags.split(extra)
    lerobot_flags.check_known(flags)
    lerobot_flags.read(flags)
    notes = [
        f"LeRobot {lerobot_flags.VERSION} has a setting of {policy_type} that the recipe does not know: "
        f"{name} is {default!r}."
        for name, default in fields.items()
        if name not in recipe.policy and name not in NOT_PINNED
    ]
    return CommandLine(flags, notes)


def from_words(words: list[str], run: Mapping[str, str]) -> CommandLine:
    """The command line ``words``, perhaps an older LeRobot's, for the installed one, with the flags ``run``.

    A configuration file becomes flags too, unless a run is resumed from it. Raises IlBenchError as
    ``translate`` does, for a flag given in both, and for a value that LeRobot refuses.
    """
    given = lerobot_flags.split(words)
    for name in run:
        if name in given:
            raise IlBenchError(f"--{name} is in the lerobot-train command; leave il-bench's own option out.")
    path = Path(given.get("config_path", ""))
    path = path / "train_config.json" if path.is_dir() else path
    if path.is_file() and given.get("resume") != "true":  # else it is an id of the Hub, or there is none
        given.pop("config_path")
        try:
            flags, notes = translate({**older_flags.of_file(path), **given, **run})
        except IlBenchError as error:
            raise error if str(path) in str(error) else IlBenchError(f"{path}: {error}") from None
        notes.insert(0, f"{path}: given to LeRobot {lerobot_flags.VERSION} as flags.")
    else:
        flags, notes = translate({**given, **run})
    if "config_path" not in flags:
        if not {"policy.type", "policy.path"} & flags.keys():
            raise IlBenchError(
                "the lerobot-train command names no policy: give --policy.type=vqbet, act or diffusion."
            )
        if "dataset.repo_id" not in flags:
            raise IlBenchError(
                "the lerobot-train command names no data: give --dataset.repo_id, or --data DIR before it."
            )
        lerobot_flags.read(flags)
    if flags.get("policy.type") == "act" and "policy.n_action_steps" not in flags:
        notes.append(
            "--policy.n_action_steps: LeRobot's ACT executes all 100 actions of a chunk, which solves 2 % of "
            "PushT; 8 to 16 work, and `il-bench train act --track pixels` executes 16."
        )
    return CommandLine(flags, notes)


def _check_preset(policy: PreTrainedConfig, recipe: PixelRecipe) -> None:
    """Raise IlBenchError unless LeRobot derives the recipe's optimizer and scheduler from its policy."""
    for name, made, expected in (
        ("optimizer", policy.get_optimizer_preset(), recipe.preset.optimizer),
        ("scheduler", policy.get_scheduler_preset(), recipe.preset.scheduler),
    ):
        found = {} if made is None else {"type": made.type, **asdict(made)}
        as_in_toml = json.loads(json.dumps(found))  # lists, not tuples
        if changed := differences(expected or {}, as_in_toml):
            raise IlBenchError(
                f"LeRobot {lerobot_flags.VERSION} makes another {name} for {policy.type} than the recipe's "
                f"[preset.{name}]: {'; '.join(changed)}. Train with LeRobot 0.6.1, or accept the change "
                "under [preset] in a recipe of your own."
            )


def saved_step(output: Path) -> int:
    """The step of the last checkpoint in ``output``, 0 without one; an IlBenchError if it is damaged."""
    path = output / STEP
    if not path.exists():
        return 0
    way_out = f"cannot resume from here: delete {path.parent.parent}."
    step = read_json(path, way_out).get("step")
    if type(step) is not int or step < 0:
        raise IlBenchError(f"{path}: step = {step!r:.60}: that is not a number of steps; {way_out}")
    return step


def to_resume(line: CommandLine, output: Path) -> CommandLine:
    """The command line that resumes the run in ``output``, which ``line`` would start.

    LeRobot 0.6.1 does not save for how many steps VQ-BeT's residual VQ has trained, and counts from 0 again.
    So the resumed run gets the number of steps that are left; its checkpoints name that number. Raises
    IlBenchError if the run had other hyperparameters or data, or if its files are damaged.
    """
    path = output / CONFIG
    saved = flatten(read_json(path, "cannot resume from here: give another --output.", allow_nan=True))
    # If the residual VQ was training when the run stopped, the policy's field holds the steps that were left.
    saved["policy.n_vqvae_training_steps"] = saved.get("scheduler.num_vqvae_training_steps")
    config = flatten(json.loads(json.dumps(draccus.encode(lerobot_flags.read(line.flags)))))
    is_pinned = {name: name.split(".")[1] not in NOT_PINNED for name in config if name.startswith("policy.")}
    now = {name: value for name, value in config.items() if is_pinned.get(name, name in SAME)}
    if changed := differences({name: saved.get(name) for name in now}, now):
        raise IlBenchError(
            f"{output}: was trained with other settings ({'; '.join(changed)}). Give another --output, or "
            "the same settings again."
        )
    flags = {"config_path": str(path), "resume": "true"}
    flags |= {name: line.flags[name] for name in FREE if name in line.flags}
    if line.residual_vq_steps:
        left = line.residual_vq_steps - saved_step(output)
        flags["policy.n_vqvae_training_steps"] = str(left if left > 0 else line.residual_vq_steps)
    return CommandLine(flags, line.notes)
