"""Translates flags and configuration files of LeRobot 0.4.4, which the course uses, for the installed one.

docs/reference/lerobot-flags.md shows the tables below. Sources, all in huggingface/lerobot: for 0.4.4, the
tag v0.4.4 (commit 8fff0fde7c79f23a93d845d1a50e985de01f8b8a); for the changes since, the configuration of
VQ-BeT at 1d6bc9ddfda85be1bd041ecbc58798bcd1c81f1b, lerobot#2685, #2918, #3046, #3202 and the notes of release
0.6.0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from draccus.utils import flatten

from il_bench.errors import IlBenchError
from il_bench.files import read_json
from il_bench.train.lerobot import flags as lerobot_flags
from il_bench.train.recipes import spell

OLDER = "0.4.4"
#: Flags that LeRobot has renamed since.
RENAMED = {"eval_freq": "env_eval_freq"}
#: Flags that LeRobot has dropped, and what to give instead.
GONE = dict.fromkeys(
    ("use_rabc", "rabc_progress_path", "rabc_kappa", "rabc_epsilon", "rabc_head_mode"),
    "--sample_weighting.type=rabc and --sample_weighting.*",
)


@dataclass(frozen=True)
class ChangedDefault:
    """A changed default of ``flag`` (for one ``--policy.type``, or None for all), and the effect."""

    flag: str
    policy: str | None
    before: Any  # LeRobot 0.4.4's
    now: Any  # LeRobot 0.6.1's
    effect: str


_IMAGENET = "ResNet18_Weights.IMAGENET1K_V1"
_ENCODER = "the image encoder starts from ImageNet's weights, which have to be downloaded, not from nothing"
_NORM = "BatchNorm instead of GroupNorm in the image encoder: what it sees depends on the rest of the batch"
CHANGED_DEFAULTS = (
    # lerobot#3202
    ChangedDefault("policy.pretrained_backbone_weights", "vqbet", None, _IMAGENET, _ENCODER),
    ChangedDefault("policy.use_group_norm", "vqbet", True, False, _NORM),
    ChangedDefault(
        "policy.horizon",
        "diffusion",
        16,
        64,
        "plans 6.4 s of PushT instead of 1.6 s; about half of the windows reach past their episode's end, "
        "since drop_n_last_frames is still the 7 that fits 16 and 8",
    ),
    ChangedDefault("policy.n_action_steps", "diffusion", 8, 32, "executes 3.2 s open loop instead of 0.8 s"),
    ChangedDefault("policy.pretrained_backbone_weights", "diffusion", None, _IMAGENET, _ENCODER),
    ChangedDefault("policy.use_group_norm", "diffusion", True, False, _NORM),
    ChangedDefault(
        "policy.use_separate_rgb_encoder_per_camera",
        "diffusion",
        False,
        True,
        "nothing with PushT's one camera but other names of the weights",
    ),
    # lerobot#2685, lerobot#3046
    ChangedDefault(
        "policy.crop_shape",
        "diffusion",
        (84, 84),
        None,
        "no random crops, the only augmentation there is (84 x 84 up to 0.4.3 and in the published run; the "
        "change is of the day 0.4.4 came out)",
    ),
    # Between 0.5.1 and 0.6.1.
    ChangedDefault(
        "eval.batch_size",
        None,
        50,
        0,
        "as many environments at once as the machine has cores for: other random numbers, and for policies "
        "that draw them other rates, on every machine",
    ),
    ChangedDefault("eval.use_async_envs", None, False, True, "a process for each environment"),
)

OURS = {"bc": "il_bc", "bet": "il_bet"}  # policies that LeRobot does not have


def translate(flags: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """``flags`` with today's names and 0.4.4's defaults, and a sentence about every change.

    Raises IlBenchError for a policy that LeRobot does not have, and for a flag that it dropped or never had.
    """
    notes: list[str] = []
    result = _rename(flags, notes)
    policy = result.get("policy.type")
    if policy in OURS:
        raise IlBenchError(
            f"--policy.type={policy}: LeRobot has no such policy; il_bench has --policy.type={OURS[policy]} "
            f"and `il-bench train {policy} --track pixels`."
        )
    if policy is not None and policy.startswith("il_") and lerobot_flags.DISCOVER not in result:
        result = {lerobot_flags.DISCOVER: "il_bench.policies", **result}
        notes.append(f"--{lerobot_flags.DISCOVER}=il_bench.policies: added so that LeRobot finds {policy}.")
    lerobot_flags.check_known(result)
    _keep_older_defaults(result, policy, notes)
    # Both versions need this flag: without it the course's command stops before it trains.
    if policy is not None and not {"policy.push_to_hub", "policy.repo_id"} & result.keys():
        result["policy.push_to_hub"] = "false"
        notes.append(
            "--policy.push_to_hub=false: added, since LeRobot would upload the policy, and stops without "
            "--policy.repo_id."
        )
    return result, notes


def of_file(path: Path) -> dict[str, str]:
    """The flags that a configuration file of ``lerobot-train`` stands for; IlBenchError if it is none."""
    config = read_json(path, "give a configuration that lerobot-train has saved, or flags")
    known = lerobot_flags.defaults({name: spell(value) for name, value in flatten(config).items()})
    return dict(_flags_in(config, "", known))


def _flags_in(config: Mapping[str, Any], prefix: str, known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        name = prefix + key
        if isinstance(value, dict) and any(each.startswith(f"{name}.") for each in known):
            yield from _flags_in(value, f"{name}.", known)
        elif value is not None or known.get(name) is not None:  # None is said by leaving a flag out
            yield name, spell(value)


def _rename(flags: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    known = lerobot_flags.defaults(flags)
    result: dict[str, str] = {}
    gone = [name for name in GONE if name in flags and name not in known]
    if gone and flags.get("use_rabc", "false").lower() == "false":
        notes.append(
            f"{', '.join(f'--{name}' for name in gone)}: left out, as LeRobot has dropped what is off."
        )
        flags = {name: value for name, value in flags.items() if name not in gone}
    for name, value in flags.items():
        now = name if name in known else RENAMED.get(name, name)
        if name in GONE and name not in known:
            raise IlBenchError(f"--{name}: LeRobot has dropped it since {OLDER}; give {GONE[name]}.")
        if now != name and now in flags:
            raise IlBenchError(f"--{name} is the old name of --{now}; give --{now} alone.")
        if now != name:
            notes.append(f"--{name} is called --{now} in LeRobot {lerobot_flags.VERSION}.")
        result[now] = value
    return result


def _keep_older_defaults(flags: dict[str, str], policy: str | None, notes: list[str]) -> None:
    """Set the flags that ``flags`` leaves out, and whose default has changed, to their defaults in 0.4.4."""
    known = lerobot_flags.defaults(flags)
    for change in CHANGED_DEFAULTS:
        now = known.get(change.flag, change.before)
        if change.policy not in (None, policy) or change.flag in flags or now == change.before:
            continue
        flags[change.flag] = spell(change.before)
        notes.append(
            f"--{change.flag}={spell(change.before)}: as in LeRobot {OLDER}; {lerobot_flags.VERSION} has "
            f"{spell(now)} ({change.effect})."
        )
