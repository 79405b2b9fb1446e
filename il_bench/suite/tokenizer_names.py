"""The tokenizers that the suite fits, and their demonstrations. Importing this module imports no torch."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from il_bench.plugin.fixtures import DATA_INI, REGISTRY
from il_bench.protocol import EXPERT, HUMAN_DATA, data_name

if TYPE_CHECKING:
    from il_bench.tokenizers import Tokenizer

#: These fit in a second, so on every set of demonstrations; `suite.tokenizers.NEW` makes them.
QUICK = ("uniform bins 256", "k-means 64", "k-means 512")
#: These fit in ten seconds each, so on one set only.
TRAINED = (
    *("residual VQ 16+16, as LeRobot trains it", "residual VQ 16+16"),
    *("VQ-VAE 256", "VQ-VAE 512", "FSQ 8x6x5", "FSQ 8x8x8"),
)
#: These are also timed. The others are like one of them, or like an embedded policy's own.
TIMED = ("uniform bins 256", "k-means 512", "VQ-VAE 512", "FSQ 8x8x8")


def demonstrations(config: pytest.Config) -> dict[str, str]:
    """The sources of demonstrations by their names in the report: the expert's, and yours if any."""
    found = {EXPERT: EXPERT}
    if own := config.getini(DATA_INI):
        path = config.rootpath / own
        found[data_name(own)] = str(path) if path.exists() else own
    elif own := os.environ.get(HUMAN_DATA):
        found["human"] = own
    return found


def preferred(config: pytest.Config) -> tuple[str, str]:
    """Name and source of the demonstrations for slow fits: yours, or else the expert's."""
    return list(demonstrations(config).items())[-1]


def of_project(config: pytest.Config) -> tuple[str, ...]:
    """The names of the project's own tokenizers; a UsageError if one is the name of one of il_bench's."""
    names = tuple(config.stash[REGISTRY].tokenizers)
    for name in names:
        if name in (*QUICK, *TRAINED):
            raise pytest.UsageError(f"tokenizer {name!r} is one of il_bench's own; give yours another name")
    return names


def factory(config: pytest.Config, name: str) -> "Callable[[], Tokenizer] | None":
    """The function that makes the project's tokenizer of this name; None for il_bench's."""
    return config.stash[REGISTRY].tokenizers.get(name)
