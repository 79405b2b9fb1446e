"""A recipe for images, or an older command line, made into flags of the installed ``lerobot-train``."""

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot.configs import PreTrainedConfig

from il_bench.errors import IlBenchError
from il_bench.train.lerobot import installed
from il_bench.train.lerobot.translate import check_known, split, translate
from il_bench.train.recipes.pixel_recipe import PixelRecipe

# Of a policy's configuration, what is no hyperparameter: the data decide it, or the machine, or the Hub.
NOT_PINNED = frozenset(
    (
        *("input_features", "output_features", "device", "discover_packages_path"),
        *("push_to_hub", "repo_id", "private", "tags", "license", "pretrained_path", "pretrained_revision"),
    )
)
PLUGIN = "il_bench.policies"


@dataclass(frozen=True)
class Plan:
    """A run of ``lerobot-train``.

    Attributes:
        flags: by dotted name, in the order they are given.
        notes: what was changed or is to be known, a sentence each.
        first_phase_steps: of VQ-BeT, the steps that train its residual VQ alone; else 0.
    """

    flags: dict[str, str]
    notes: list[str] = field(default_factory=list)
    first_phase_steps: int = 0

    @property
    def output(self) -> Path | None:
        """Folder of the run; None where LeRobot is to choose one."""
        given = self.flags.get("output_dir")
        return Path(given) if given else None

    def arguments(self) -> list[str]:
        """The flags as words of a command line."""
        return [f"--{name}={value}" for name, value in self.flags.items()]

    def command(self) -> str:
        """The command, to be copied into a shell."""
        return " \\\n    ".join(["lerobot-train", *(shlex.quote(word) for word in self.arguments())])


def from_recipe(recipe: PixelRecipe, run: Mapping[str, str], extra: list[str]) -> Plan:
    """The plan of a recipe.

    Args:
        recipe: which policy, and every hyperparameter of its training.
        run: what the recipe leaves open, by dotted name: data, output, seed, device.
        extra: words of ``lerobot-train``'s command line that are to win over the recipe.

    Raises:
        IlBenchError: LeRobot does not take a flag or a value, or makes another optimizer of them than the
            recipe says.
    """
    policy_type = str(recipe.policy.get("type"))
    discover = {installed.DISCOVER: PLUGIN} if policy_type.startswith("il_") else {}
    flags = {**discover, **recipe.flags(), "policy.push_to_hub": "false", **run}
    fields = installed.policy_fields(policy_type)
    check_known(flags)
    check_preset(installed.read(flags).policy, recipe)
    flags |= split(extra)
    check_known(flags)
    installed.read(flags)
    notes = [
        f"LeRobot {installed.VERSION} has a setting of {policy_type} that the recipe does not know: "
        f"{name} is {default!r}."
        for name, default in fields.items()
        if name not in recipe.policy and name not in NOT_PINNED
    ]
    return Plan(flags, notes, _first_phase(flags))


def from_line(words: list[str], run: Mapping[str, str]) -> Plan:
    """The plan of a command line of LeRobot's, an older one perhaps.

    Args:
        words: the line.
        run: flags that are added to it.

    Raises:
        IlBenchError: as ``translate``; a flag given in both; LeRobot does not take a value.
    """
    flags = split(words)
    for name in run:
        if name in flags:
            raise IlBenchError(f"--{name} is in lerobot-train's line; leave il-bench's own option out.")
    line = translate({**flags, **run})
    if (
        "policy.type" not in line.flags
        and "policy.path" not in line.flags
        and "config_path" not in line.flags
    ):
        raise IlBenchError(
            "lerobot-train's line names no policy: give --policy.type=vqbet, act or diffusion."
        )
    if "dataset.repo_id" not in line.flags and "config_path" not in line.flags:
        raise IlBenchError(
            "lerobot-train's line names no data: give --dataset.repo_id, or --data DIR before it."
        )
    if "config_path" not in line.flags:
        installed.read(line.flags)
    notes = list(line.notes)
    if line.flags.get("policy.type") == "act" and "policy.n_action_steps" not in line.flags:
        notes.append(
            "--policy.n_action_steps: LeRobot's ACT executes all 100 actions of a chunk, which solves 2 % of "
            "PushT; 8 to 16 work, and `il-bench train act --track pixels` executes 16."
        )
    return Plan(line.flags, notes, _first_phase(line.flags))


def check_preset(policy: PreTrainedConfig, recipe: PixelRecipe) -> None:
    """Raise IlBenchError unless LeRobot makes the recipe's optimizer and scheduler of its policy's fields."""
    for name, made, expected in (
        ("optimizer", policy.get_optimizer_preset(), recipe.preset.optimizer),
        ("scheduler", policy.get_scheduler_preset(), recipe.preset.scheduler),
    ):
        facts = None if made is None else {"type": made.type, **dataclasses.asdict(made)}
        plain = None if facts is None else {key: _plain(value) for key, value in facts.items()}
        if plain != expected:
            raise IlBenchError(
                f"LeRobot {installed.VERSION} makes another {name} for {policy.type} than the recipe's "
                f"[preset.{name}]: {_difference(plain, expected)}. Train with LeRobot "
                "0.6.1, or say under [preset] of a recipe of your own that this is meant."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _difference(made: dict[str, Any] | None, expected: dict[str, Any] | None) -> str:
    if made is None or expected is None:
        return f"{made} instead of {expected}"
    keys = [key for key in {**made, **expected} if made.get(key) != expected.get(key)]
    return "; ".join(f"{key} is {made.get(key)}, not {expected.get(key)}" for key in keys)


def _first_phase(flags: Mapping[str, str]) -> int:
    policy_type = flags.get("policy.type")
    if policy_type not in ("vqbet", "il_vqbet"):
        return 0
    given = flags.get("policy.n_vqvae_training_steps")
    return int(given or installed.policy_fields(policy_type)["n_vqvae_training_steps"])
