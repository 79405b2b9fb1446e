"""Whether a checkpoint's processors normalise what its policy was trained on, once, by real numbers.

LeRobot passes on what it has no statistics of, in px, and computes with whatever statistics there are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.processor import (
    AbsoluteActionsProcessorStep,
    NormalizerProcessorStep,
    RelativeActionsProcessorStep,
    UnnormalizerProcessorStep,
)
from torch import Tensor

from il_bench.errors import IlBenchError
from il_bench.policies.checkpoint.processors import PROCESSORS

_NORMALISERS = (NormalizerProcessorStep, UnnormalizerProcessorStep)
#: The statistics of a mode: the two that a range lies between, or a middle and a spread.
_NEEDED = {
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}
_LARGEST_EPS = 1e-3  # it is added to spreads, so as never to divide by 0
_TOGETHER = "config.json and the processors must come from the same training run."
_AGAIN = "save the processors again, with the data set's statistics."


def check_normalisation(
    config: PreTrainedConfig, preprocessor: Any, postprocessor: Any, folder: Path, *, is_pusht: bool
) -> None:
    """Raise IlBenchError unless each feature is normalised as the configuration says, by statistics of it.

    Observations are normalised before the policy, actions unnormalised after it. is_pusht: every number of
    every feature varies, so a spread of 0 is wrong; elsewhere a feature may be constant.
    """
    for name, pipeline, kind, features in (
        (PROCESSORS[0], preprocessor, NormalizerProcessorStep, config.input_features),
        (PROCESSORS[1], postprocessor, UnnormalizerProcessorStep, config.output_features),
    ):
        steps = [step for step in pipeline.steps if isinstance(step, _NORMALISERS)]
        for key, feature in (features or {}).items():
            where = f"{folder / name}: steps: {key!r}"
            if _mode_of(steps, key, feature, config, where, is_alone=_are_known(pipeline.steps)):
                step = next(step for step in steps if _mode(step, key))
                if not isinstance(step, kind):
                    raise IlBenchError(f"{where} is normalised the wrong way round; {_TOGETHER}")
                _check_statistics(step, key, where, is_pusht)
    _check_relative(preprocessor.steps, postprocessor.steps, folder)


def _mode(step: Any, key: str) -> NormalizationMode | None:
    """How a step normalises a feature; None where it leaves it as it is on purpose."""
    feature, chosen = step.features.get(key), step.normalize_observation_keys
    if feature is None or (chosen is not None and key not in chosen and key.startswith("observation")):
        return None
    mode = step.norm_map.get(feature.type, NormalizationMode.IDENTITY)
    return None if mode is NormalizationMode.IDENTITY else mode


def _mode_of(
    steps: list[Any],
    key: str,
    feature: PolicyFeature,
    config: PreTrainedConfig,
    where: str,
    *,
    is_alone: bool,
) -> NormalizationMode | None:
    """The one mode of a feature in all the steps; IlBenchError unless it is the configuration's.

    is_alone: no step is of somebody's own class, which could normalise too.
    """
    found = [mode for step in steps if (mode := _mode(step, key))]
    if len(found) > 1:
        raise IlBenchError(f"{where} is normalised {len(found)} times, by {found[0].value}; {_TOGETHER}")
    mapping: Mapping[str, NormalizationMode] = getattr(config, "normalization_mapping", None) or {}
    expected = mapping.get(feature.type.value)
    mode = found[0] if found else NormalizationMode.IDENTITY
    # Where a configuration says "as it is", some of LeRobot's policies have steps of their own statistics.
    if expected in (None, NormalizationMode.IDENTITY, mode) or not (found or is_alone):
        return found[0] if found else None
    raise IlBenchError(
        f"{where} is normalised by {mode.value if found else 'nothing'}, and config.json says "
        f"{expected.value}; {_TOGETHER}"
    )


def _are_known(steps: list[Any]) -> bool:
    return all(type(step).__module__.startswith(("lerobot.", "il_bench.")) for step in steps)


def _check_statistics(step: Any, key: str, where: str, is_pusht: bool) -> None:
    mode = _mode(step, key)
    assert mode is not None
    of_key = {
        name.rpartition(".")[2]: value
        for name, value in step.state_dict().items()
        if name.rpartition(".")[0] == key
    }
    if not of_key:
        known = ", ".join(sorted({name.rpartition(".")[0] for name in step.state_dict()})) or "nothing"
        raise IlBenchError(
            f"{where} is normalised by {mode.value}, but there are no statistics of it (there are of "
            f"{known}), so LeRobot would pass it on in px; {_AGAIN}"
        )
    if not 0 <= step.eps <= _LARGEST_EPS:
        raise IlBenchError(f"{where}: eps = {step.eps:g}: has to be at most {_LARGEST_EPS:g}; {_AGAIN}")
    low_name, high_name = _NEEDED[mode]
    if missing := [name for name in _NEEDED[mode] if name not in of_key]:
        raise IlBenchError(f"{where}: has no {missing[0]!r} for {mode.value}; {_AGAIN}")
    low, high, shape = of_key[low_name], of_key[high_name], tuple(step.features[key].shape)
    for name, value in ((low_name, low), (high_name, high)):
        if not _fits(tuple(value.shape), shape):
            found = tuple(value.shape)
            raise IlBenchError(f"{where}: its {name!r} has shape {found}, and the feature {shape}; {_AGAIN}")
        if not torch.isfinite(value).all():
            raise IlBenchError(f"{where}: its {name!r} holds NaN or infinity; {_AGAIN}")
    spread = high if mode is NormalizationMode.MEAN_STD else high - low
    what = high_name if mode is NormalizationMode.MEAN_STD else f"{high_name}' - '{low_name}"
    _check_spread(spread, f"{where}: its '{what}'", is_pusht)


def _fits(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Statistics have the shape of the feature; of an image, of its channels."""
    is_image = len(shape) == 3
    return found == shape or (is_image and found in ((shape[0], 1, 1), (1, 1, 1)))


def _check_spread(spread: Tensor, where: str, is_pusht: bool) -> None:
    least = float(spread.min())
    if not torch.isfinite(spread).all() or least < 0 or (least == 0 and is_pusht):
        raise IlBenchError(f"{where} is {least:g} in one place, too small for numbers that vary; {_AGAIN}")


def _check_relative(before: list[Any], after: list[Any], folder: Path) -> None:
    """Raise IlBenchError unless actions are made absolute once if they are relative, and else never.

    A step that is not enabled only remembers the agent's place: the data were relative already.
    """
    to_relative = [step for step in before if isinstance(step, RelativeActionsProcessorStep)]
    to_absolute = [step for step in after if isinstance(step, AbsoluteActionsProcessorStep)]
    relative, absolute = (sum(step.enabled for step in steps) for steps in (to_relative, to_absolute))
    once = (len(to_relative), absolute) == (1, 1)
    if len(to_relative) != len(to_absolute) or ((relative or absolute) and not once):
        raise IlBenchError(
            f"{folder}: {PROCESSORS[0]} has {len(to_relative)} steps for relative actions ({relative} "
            f"enabled), and {PROCESSORS[1]} {len(to_absolute)} that make them absolute ({absolute} enabled); "
            "both must come from the same training run."
        )
