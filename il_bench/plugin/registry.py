"""What a project adds by the hook `pytest_il_bench_register`: policies, tokenizers, environments.

Read by every pytest run of everybody who has il_bench installed: standard library only.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from il_bench.errors import IlBenchError
from il_bench.plugin.settings import ZOO, PolicyChoice
from il_bench.protocol import CONTEXT, TRACKS

if TYPE_CHECKING:
    import gymnasium
    import torch

    from il_bench.rollout import Policy
    from il_bench.tokenizers import Tokenizer

#: A checkpoint as --il-policy takes it, or a call that is given the device and gives the policy.
PolicySource = str | Path | Callable[[str], "Policy"]
#: One observation of an environment -> what `select_action` is given, a batch of one.
Observe = Callable[[Any], "dict[str, torch.Tensor]"]

_HOOK = "pytest_il_bench_register"


@dataclass(frozen=True)
class RegisteredPolicy:
    """A policy of a project. `environment`: None for PushT; `data`: what it was trained on, in words."""

    name: str
    source: PolicySource
    environment: str | None
    data: str

    @property
    def choice(self) -> PolicyChoice:
        """It as one that is rolled out."""
        in_process = callable(self.source)
        source = self.name if in_process else str(self.source)
        return PolicyChoice(self.name, source, self.name, environment=self.environment, in_process=in_process)


@dataclass(frozen=True)
class RegisteredTokenizer:
    """An action tokenizer of a project, to be fitted on the demonstrations."""

    name: str
    make: "Callable[[], Tokenizer]"


@dataclass(frozen=True)
class RegisteredEnvironment:
    """A gymnasium environment of a project. `observe`: None for LeRobot's names of observations."""

    name: str
    make: "Callable[[], gymnasium.Env[Any, Any]]"
    max_steps: int
    observe: Observe | None


class Registry:
    """What the projects of a run have added, each by its name.

    A name has letters, digits, dots, underscores and hyphens, tokenizers' also spaces and commas.
    """

    def __init__(self) -> None:
        self.policies: dict[str, RegisteredPolicy] = {}
        self.tokenizers: dict[str, RegisteredTokenizer] = {}
        self.environments: dict[str, RegisteredEnvironment] = {}

    def policy(
        self, name: str, source: PolicySource, *, environment: str | None = None, data: str = "unknown"
    ) -> None:
        """Add a policy: rolled out in every run of the suite, or alone with `--il-policy NAME`.

        Args:
            name: of its row in the report and of its gates in a baselines file.
            source: a checkpoint as --il-policy takes it, a path relative to where pytest is called; or a call
                that is given the device and gives any object with LeRobot's ``reset()`` and
                ``select_action(batch)``, on raw observations and actions, which runs in this process. What
                sees PushT's image has an attribute ``camera``, a `il_bench.pusht.camera.Camera`.
            environment: the name of an environment added by `environment`; None for PushT.
            data: what it was trained on, for the report.

        Raises:
            IlBenchError: the name is taken or unusable, or the source is neither.
        """
        _check_name("policy", name, self.policies)
        if name in CONTEXT or (ZOO / name).exists():
            raise IlBenchError(
                f"{_HOOK}: policy {name!r} is a row of il_bench's own; give yours another name"
            )
        if not isinstance(source, str | Path) and not callable(source):
            raise IlBenchError(
                f"{_HOOK}: policy {name!r}: {source!r} is neither a checkpoint nor a call that gives a policy"
            )
        self.policies[name] = RegisteredPolicy(name, source, environment, data)

    def tokenizer(self, name: str, make: "Callable[[], Tokenizer]") -> None:
        """Add an action tokenizer: fitted on the demonstrations, measured and timed beside il_bench's own.

        Args:
            name: of its row in the report.
            make: gives a new `il_bench.tokenizers.Tokenizer`, not fitted, of chunks of 2-dimensional actions.

        Raises:
            IlBenchError: the name is taken or unusable, or `make` cannot be called.
        """
        _check_name("tokenizer", name, self.tokenizers, also=r" ,+")
        _check_callable("tokenizer", name, make)
        self.tokenizers[name] = RegisteredTokenizer(name, make)

    def environment(
        self,
        name: str,
        make: "Callable[[], gymnasium.Env[Any, Any]]",
        *,
        max_steps: int,
        observe: Observe | None = None,
    ) -> None:
        """Add an environment, in which the policies are rolled out that name it.

        One episode a seed, the same seeds as everywhere, one after another: ``reset(seed=seed)`` and ``step``
        until it ends, `max_steps` at most. It is a success if ``info["is_success"]`` is true at some step.
        Its reward is not looked at, so mean_max_reward is the success_rate.

        Args:
            name: of the environment, the `track` of its rows in the report and in a baselines file.
            make: gives the environment, whose actions are a box; it is made once and closed at the end.
            max_steps: the most steps of an episode, 1 or more.
            observe: makes of one observation what ``select_action`` is given, a batch of one. Without it:
                LeRobot's names, ``agent_pos`` becomes ``observation.state``; an array becomes that too.

        Raises:
            IlBenchError: the name is taken or unusable, `make` cannot be called, or `max_steps` is below 1.
        """
        if name in TRACKS:
            raise IlBenchError(f"{_HOOK}: environment {name!r} is a track of PushT; give yours another name")
        _check_name("environment", name, self.environments)
        _check_callable("environment", name, make)
        if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
            raise IlBenchError(
                f"{_HOOK}: environment {name!r}: max_steps {max_steps!r} is no number from 1 up"
            )
        self.environments[name] = RegisteredEnvironment(name, make, max_steps, observe)

    def check(self) -> None:
        """Raise IlBenchError for a policy of an environment that nobody has added."""
        for policy in self.policies.values():
            if policy.environment is not None and policy.environment not in self.environments:
                known = ", ".join(self.environments) or "none"
                raise IlBenchError(
                    f"{_HOOK}: policy {policy.name!r}: no environment {policy.environment!r} was added "
                    f"(there is {known}); add it with registry.environment"
                )


def _check_name(kind: str, name: object, known: Mapping[str, object], also: str = "") -> None:
    if not isinstance(name, str) or not re.fullmatch(rf"[\w.\-{also}]+", name):
        raise IlBenchError(
            f"{_HOOK}: {kind} {name!r} is no usable name; use letters, digits, '.', '_' and '-'"
        )
    if name in known:
        raise IlBenchError(f"{_HOOK}: {kind} {name!r} is added twice; give one of them another name")


def _check_callable(kind: str, name: str, make: object) -> None:
    if not callable(make):
        raise IlBenchError(
            f"{_HOOK}: {kind} {name!r}: {make!r} cannot be called; give a function that makes it"
        )
