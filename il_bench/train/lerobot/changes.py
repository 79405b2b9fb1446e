"""What changed between LeRobot 0.4.4, which the course's command lines are for, and 0.6.1, and what it does.

The one table behind the translation of older lines and the README's. Sources for 0.4.4 (tag v0.4.4, commit
8fff0fde7c79f23a93d845d1a50e985de01f8b8a) and the changes since, all in huggingface/lerobot: the configuration
of VQ-BeT at 1d6bc9ddfda85be1bd041ecbc58798bcd1c81f1b, lerobot#2685, #2918, #3046 and #3202, and the
breaking changes that the release of 0.6.0 names; for 0.6.1 the package itself.
"""

from dataclasses import dataclass
from typing import Any

BEFORE = "0.4.4"


@dataclass(frozen=True)
class Renamed:
    """A flag of 0.4.4 that is called otherwise now, or is gone: then ``now`` is None.

    Attributes:
        before, now: dotted names without the dashes.
        effect: what the line does if it is not translated.
        instead: of a flag that is gone, what to give.
    """

    before: str
    now: str | None
    effect: str
    instead: str = ""


@dataclass(frozen=True)
class Default:
    """A default that changed.

    Attributes:
        flag: dotted name without the dashes.
        policy: the ``--policy.type`` it is of; None: every one.
        before, now: LeRobot 0.4.4's and 0.6.1's, ``"null"`` for none.
        effect: what the new default does to the recipe.
        since: the change in LeRobot's repository.
    """

    flag: str
    policy: str | None
    before: Any
    now: Any
    effect: str
    since: str


RENAMED = (
    Renamed("eval_freq", "env_eval_freq", "the line does not parse"),
    *(
        Renamed(
            name, None, "the line does not parse", "--sample_weighting.type=rabc and --sample_weighting.*"
        )
        for name in ("use_rabc", "rabc_progress_path", "rabc_kappa", "rabc_epsilon", "rabc_head_mode")
    ),
)

IMAGENET = "ResNet18_Weights.IMAGENET1K_V1"
_ENCODER = "the image encoder starts from ImageNet's weights, which have to be downloaded, not from nothing"
_NORM = "BatchNorm instead of GroupNorm in the image encoder: what it sees depends on the rest of the batch"
DEFAULTS = (
    Default("policy.pretrained_backbone_weights", "vqbet", "null", IMAGENET, _ENCODER, "lerobot#3202"),
    Default("policy.use_group_norm", "vqbet", True, False, _NORM, "lerobot#3202"),
    Default(
        "policy.horizon",
        "diffusion",
        16,
        64,
        "plans 6.4 s of PushT instead of 1.6 s; about half of the windows reach past their episode's end, "
        "since drop_n_last_frames is still the 7 that fits 16 and 8",
        "lerobot#3202",
    ),
    Default(
        "policy.n_action_steps",
        "diffusion",
        8,
        32,
        "executes 3.2 s open loop instead of 0.8 s",
        "lerobot#3202",
    ),
    Default(
        "policy.pretrained_backbone_weights",
        "diffusion",
        "null",
        IMAGENET,
        _ENCODER,
        "lerobot#3202",
    ),
    Default("policy.use_group_norm", "diffusion", True, False, _NORM, "lerobot#3202"),
    Default(
        "policy.use_separate_rgb_encoder_per_camera",
        "diffusion",
        False,
        True,
        "nothing with PushT's one camera but other names of the weights",
        "lerobot#3202",
    ),
    Default(
        "policy.crop_shape",
        "diffusion",
        [84, 84],
        "null",
        "no random crops, the only augmentation there is (84 x 84 up to 0.4.3 and in the published run; the "
        "change is of the day 0.4.4 came out)",
        "lerobot#2685, lerobot#3046",
    ),
    Default(
        "eval.batch_size",
        None,
        50,
        0,
        "as many environments at once as the machine has cores for: other random numbers, and for policies "
        "that draw them other rates, on every machine",
        "0.5.1 to 0.6.1",
    ),
    Default("eval.use_async_envs", None, False, True, "a process for each environment", "0.5.1 to 0.6.1"),
)

#: Not of LeRobot 0.4.4 against 0.6.1 but of both: without it the course's line stops before it trains.
NO_UPLOAD = (
    "policy.push_to_hub",
    "false",
    "LeRobot stops without --policy.repo_id unless nothing is to be uploaded",
)
