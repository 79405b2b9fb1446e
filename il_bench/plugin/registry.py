"""What a project adds by the hook `pytest_il_bench_register`: policies, tokenizers, environments.

Read by every pytest run of everybody who has il_bench installed: standard library only.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from il_bench import zoo
from il_bench.errors import IlBenchError
from il_bench.plugin.options import PolicyChoice
from il_bench.protocol import CONTEXT, TRACKS

if TYPE_CHECKING:
    import gymnasium
    import torch

    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.rollout import Policy
    from il_bench.tokenizers import Tokenizer

#: A checkpoint as --il-policy takes it, or a call that is given the device and gives the policy.
PolicySource = str | Path | Callable[[str], "Policy"]
#: One observation of an environment -> what `select_action` is given, a batch of one.
Observe = Callable[[Any], "dict[str, torch.Tensor]"]


def pytest_il_bench_register(registry: "Registry") -> None:
    """Add policies, action tokenizers and gymnasium environments to the suite: a hook for projects.

    A project's plugin or root conftest.py defines it; one that is to work without il_bench too marks it
    ``@pytest.hookimpl(optionalhook=True)``. It is called once a run, also where nothing is measured, and by
    every worker of pytest-xdist: give loaders and factories, and import what is heavy inside them.
    """


@dataclass(frozen=True)
class RegisteredPolicy:
    """A policy of a project. `environment`: None for PushT; `data`: what it was trained on, in words."""

    name: str
    source: PolicySource
    environment: str | None
    data: str

    def choice(self, folder: Path = Path()) -> PolicyChoice:
        """The same as --il-policy would choose it; paths are relative to a folder."""
        if callable(self.source):
            return PolicyChoice(self.name, self.name, self.name, self.environment, in_process=True)
        path = folder / os.path.expanduser(self.source)
        source = path if os.path.exists(path) else self.source
        return PolicyChoice(self.name, str(source), self.name, self.environment)


@dataclass(frozen=True)
class RegisteredEnvironment:
    """A gymnasium environment of a project. `observe`: None for LeRobot's names of observations."""

    name: str
    make: "Callable[[], gymnasium.Env[Any, Any]]"
    max_steps: int
    observe: Observe | None


class Registry:
    """What the projects of a run have added, each by its name.

    A name has letters, digits, dots, underscores and hyphens, tokenizers' also spaces and commas. A name that
    is taken or unusable, and what is not of the kind that is asked for, is an IlBenchError.
    """

    def __init__(self) -> None:
        self.policies: dict[str, RegisteredPolicy] = {}
        self.tokenizers: dict[str, Callable[[], Tokenizer]] = {}
        self.environments: dict[str, RegisteredEnvironment] = {}

    def policy(
        self, name: str, source: PolicySource, *, environment: str | None = None, data: str = "unknown"
    ) -> None:
        """Add a policy: rolled out in every run of the suite, or alone with `--il-policy NAME`.

        Args:
            name: of its row in the report and of its gates in a baselines file.
            source: a checkpoint as --il-policy takes it, a path relative to where pytest is called; or a call
                that is given the device and gives any object with LeRobot's ``reset()`` and
                ``select_action(batch)``, on raw observations and actions. The object runs in this process; to
                see PushT's image it has an attribute ``camera``, a `il_bench.pusht.Camera`.
            environment: the name of an environment added by `environment`; None for PushT.
            data: what it was trained on, for the report.
        """
        _check_name("policy", name, self.policies)
        if name in CONTEXT or name in zoo.shipped():
            raise _unusable(f"policy {name!r} is a row of il_bench's own; give yours another name")
        if not isinstance(source, str | Path) and not callable(source):
            raise _unusable(f"policy {name!r}: {source!r} is no checkpoint and no call that gives a policy")
        self.policies[name] = RegisteredPolicy(name, source, environment, data)

    def tokenizer(self, name: str, make: "Callable[[], Tokenizer]") -> None:
        """Add an action tokenizer: fitted on the demonstrations, measured and timed beside il_bench's own.

        Args:
            name: of its row in the report.
            make: gives a new `il_bench.tokenizers.Tokenizer`, not fitted, of chunks of 2-dimensional actions.
        """
        _check_name("tokenizer", name, self.tokenizers, also=r" ,+")
        _check_callable("tokenizer", name, make)
        self.tokenizers[name] = make

    def environment(
        self,
        name: str,
        make: "Callable[[], gymnasium.Env[Any, Any]]",
        *,
        max_steps: int,
        observe: Observe | None = None,
    ) -> None:
        """Add an environment for the policies that name it.

        Each seed is one episode: ``reset(seed=seed)``, then ``step`` until it ends, `max_steps` at most. It
        is a success if ``info["is_success"]`` is true at some step. Rewards are not read: mean_max_reward is
        the success_rate.

        Args:
            name: of the environment, the `track` of its rows in the report and in a baselines file.
            make: gives the environment, whose actions are a box; it is made once and closed at the end.
            max_steps: the most steps of an episode, 1 or more.
            observe: makes of one observation the batch of one that ``select_action`` is given. Without it
                observations get LeRobot's names: ``agent_pos``, or a plain array, is ``observation.state``.
        """
        if name in TRACKS:
            raise _unusable(f"environment {name!r} is a track of PushT; give yours another name")
        _check_name("environment", name, self.environments)
        _check_callable("environment", name, make)
        if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
            raise _unusable(f"environment {name!r}: max_steps {max_steps!r} is no number from 1 up")
        self.environments[name] = RegisteredEnvironment(name, make, max_steps, observe)

    def choices(self, folder: Path) -> dict[str, PolicyChoice]:
        """The policies as --il-policy would choose them, by name; paths are relative to a folder."""
        return {name: policy.choice(folder) for name, policy in self.policies.items()}

    def check(self) -> None:
        """Raise IlBenchError for a policy of an environment that nobody has added."""
        for policy in self.policies.values():
            if policy.environment is not None and policy.environment not in self.environments:
                known = ", ".join(self.environments) or "none"
                raise _unusable(
                    f"policy {policy.name!r}: no environment {policy.environment!r} was added "
                    f"(there is {known}); add it with registry.environment"
                )


def load(choice: PolicyChoice, registry: Registry, device: str) -> "LoadedPolicy":
    """Load the policy of a choice, a registered one or not.

    Raises:
        IlBenchError: there is no such checkpoint, it does not fit, or a project's call gives something else
            than a policy. What the call itself raises is the project's, and is not touched.
    """
    from il_bench.policies.checkpoint import load_policy

    registered = registry.policies.get(choice.label)
    if registered is None:
        return replace(load_policy(choice.source, device=device), name=choice.gate_name)
    if callable(registered.source):
        loaded = _called(registered, registered.source, device)
    else:  # a test that names a registered policy itself has no choice with its path
        spec = choice.source if choice.name == registered.name else str(registered.source)
        loaded = load_policy(spec, device=device, track=registered.environment)
    data = loaded.data if registered.data == "unknown" else registered.data
    return replace(loaded, name=registered.name, data=data)


def _called(registered: RegisteredPolicy, call: "Callable[[str], Policy]", device: str) -> "LoadedPolicy":
    from il_bench.policies.checkpoint import LoadedPolicy, wrap_object
    from il_bench.rollout import Policy

    made = call(device)
    if isinstance(made, LoadedPolicy):
        return replace(made, track=registered.environment or made.track)
    origin = f"{call.__module__}.{getattr(call, '__qualname__', type(call).__name__)}"
    if not isinstance(made, Policy) or isinstance(made, type):
        raise IlBenchError(
            f"policy {registered.name!r}: {origin} gave {made!r}, which has no reset() and "
            "select_action(batch); return an object with LeRobot's two methods"
        )
    return wrap_object(made, name=registered.name, checkpoint=origin, track=registered.environment)


def _check_name(kind: str, name: object, known: Mapping[str, object], also: str = "") -> None:
    if not isinstance(name, str) or not re.fullmatch(rf"[\w.\-{also}]+", name):
        raise _unusable(f"{kind} {name!r} is no usable name; use letters, digits, '.', '_' and '-'")
    if name in known:
        raise _unusable(f"{kind} {name!r} is added twice; give one of them another name")


def _check_callable(kind: str, name: str, make: object) -> None:
    if not callable(make):
        raise _unusable(f"{kind} {name!r}: {make!r} cannot be called; give a function that makes it")


def _unusable(what: str) -> IlBenchError:
    return IlBenchError(f"pytest_il_bench_register: {what}")
