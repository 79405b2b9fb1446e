"""il_bench: a pytest plugin that says how good and how fast an imitation-learning policy is on PushT.

Importing it imports no torch: the public names below are resolved when they are first used.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from il_bench.policies.checkpoint import load_policy as load_policy
    from il_bench.train.evaluation import evaluate as evaluate
    from il_bench.train.evaluation import evaluate_beside as evaluate_beside

__version__ = "0.1.0"
__all__ = ["evaluate", "evaluate_beside", "load_policy"]


def lazily(package: str, names: dict[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562): each of `names` comes out of its module when first asked for."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(names[name]), name)

    return find


_EVALUATION = "il_bench.train.evaluation"
__getattr__ = lazily(
    __name__,
    {
        "evaluate": _EVALUATION,
        "evaluate_beside": _EVALUATION,
        "load_policy": "il_bench.policies.checkpoint",
    },
)
