"""Which tokenizers the suite fits, and on whose demonstrations; collecting the tests imports no torch."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from il_bench.plugin.fixtures import DATA_INI, REGISTRY
from il_bench.protocol import EXPERT, HUMAN_DATA, data_name

if TYPE_CHECKING:
    from il_bench.tokenizers import Tokenizer

#: Fitted in a second, so on every set of demonstrations; `suite.tokenizers.NEW` says how to make them.
QUICK = ("uniform bins 256", "k-means 64", "k-means 512")
#: Fitted in ten seconds each, so on one set only.
TRAINED = (
    *("residual VQ 16+16, as LeRobot trains it", "residual VQ 16+16"),
    *("VQ-VAE 256", "VQ-VAE 512", "FSQ 8x6x5", "FSQ 8x8x8"),
)
#: Timed too. Each of the others is like one of these, or like an embedded policy's own.
TIMED = ("uniform bins 256", "k-means 512", "VQ-VAE 512", "FSQ 8x8x8")


def demonstrations(config: pytest.Config) -> dict[str, str]:
    """The source of each set of demonstrations, by its name in the report: the expert's, and yours if any."""
    found = {EXPERT: EXPERT}
    if own := config.getini(DATA_INI):
        path = config.rootpath / own
        found[data_name(own)] = str(path) if path.exists() else own
    elif own := os.environ.get(HUMAN_DATA):
        found["human"] = own
    return found


def preferred(config: pytest.Config) -> tuple[str, str]:
    """Name and source of the demonstrations for what takes long to fit: yours, else the expert's."""
    return list(demonstrations(config).items())[-1]


def registered(config: pytest.Config) -> tuple[str, ...]:
    """Names of the project's own tokenizers; a UsageError where one is the name of one of il_bench's."""
    names = tuple(config.stash[REGISTRY].tokenizers)
    for name in names:
        if name in (*QUICK, *TRAINED):
            raise pytest.UsageError(f"tokenizer {name!r} is one of il_bench's own; give yours another name")
    return names


def factory(config: pytest.Config, name: str) -> "Callable[[], Tokenizer] | None":
    """What makes the project's tokenizer of this name; None for one of il_bench's."""
    return config.stash[REGISTRY].tokenizers.get(name)
