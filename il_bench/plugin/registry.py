"""What a project adds with the hook `pytest_il_bench_register`: policies, tokenizers, environments.

Every pytest run loads this module where il_bench is installed: standard library only.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from il_bench import zoo
from il_bench.errors import IlBenchError
from il_bench.plugin.choices import PolicyChoice
from il_bench.protocol import CONTEXT, TRACKS

if TYPE_CHECKING:
    import gymnasium
    import torch

    from il_bench.policies.checkpoint import LoadedPolicy
    from il_bench.rollout import Policy
    from il_bench.tokenizers import Tokenizer

#: A checkpoint as --il-policy takes it, or a function that takes the device and returns the policy.
PolicySource = str | Path | Callable[[str], "Policy"]
#: Turns one observation of an environment into the batch of one that `select_action` takes.
Observe = Callable[[Any], "dict[str, torch.Tensor]"]


def pytest_il_bench_register(registry: "Registry") -> None:
    """Add policies, action tokenizers and gymnasium environments to the suite: a hook for projects.

    Define it in a plugin or in the root conftest.py; mark it ``@pytest.hookimpl(optionalhook=True)`` if that
    has to work without il_bench too. Every pytest run calls it once, and so does every worker of
    pytest-xdist: give functions that load, and import what is heavy inside them.
    """


class RegisteredPolicy(NamedTuple):
    """A project's policy. `environment`: None for PushT. `data`: what it was trained on, in words.

    version: of the code that makes the policy and its environment; None: the project gives none.
    """

    name: str
    source: PolicySource
    environment: str | None
    data: str
    version: str | None = None

    def choice(self, folder: Path = Path()) -> PolicyChoice:
        """The policy as --il-policy would choose it; a relative path begins at `folder`."""
        in_process = callable(self.source)
        has_journal = self.version is not None or not (in_process or self.environment)
        source = self.name
        if not callable(self.source):
            path = folder / os.path.expanduser(self.source)
            source = str(path if os.path.exists(path) else self.source)
        return PolicyChoice(
            self.name, source, self.name, self.environment, in_process, self.version, has_journal
        )


class RegisteredEnvironment(NamedTuple):
    """A project's gymnasium environment. `observe`: None to use LeRobot's names of observations."""

    name: str
    make: "Callable[[], gymnasium.Env[Any, Any]]"
    max_steps: int
    observe: Observe | None


class Registry:
    """What the projects of a run have added, by name.

    Names consist of letters, digits, dots, underscores and hyphens; a tokenizer's may have spaces and commas
    too. Whatever is unusable, such as a name that is taken, raises an IlBenchError.
    """

    def __init__(self) -> None:
        self.policies: dict[str, RegisteredPolicy] = {}
        self.tokenizers: dict[str, Callable[[], Tokenizer]] = {}
        self.environments: dict[str, RegisteredEnvironment] = {}

    def policy(
        self,
        name: str,
        source: PolicySource,
        *,
        environment: str | None = None,
        data: str = "unknown",
        version: str | None = None,
    ) -> None:
        """Add a policy: rolled out in every run of the suite, or alone with `--il-policy NAME`.

        Args:
            name: of its row in the report and of its gates in a baselines file.
            source: a checkpoint as --il-policy takes it (relative paths begin where pytest is called), or a
                function that takes the device and returns any object with LeRobot's ``reset()`` and
                ``select_action(batch)``, on raw observations and actions. The object runs in this process.
                To see PushT's image, give it an attribute ``camera``, an `il_bench.pusht.Camera`.
            environment: the name of an environment that `environment` added; None for PushT.
            data: what it was trained on, for the report.
            version: of your code that makes the policy and its environment; give another one whenever the
                code changes. Code has no hash, so without a version an interrupted run starts over, also with
                --il-resume. A checkpoint in PushT needs none.
        """
        _check_name("policy", name, self.policies)
        if name in CONTEXT or name in zoo.shipped():
            raise _unusable(f"policy {name!r} is one of il_bench's own rows; give yours another name")
        if not isinstance(source, str | Path) and not callable(source):
            raise _unusable(
                f"policy {name!r}: {source!r} is neither a checkpoint nor a function that returns a policy"
            )
        if version is not None and not (isinstance(version, str) and version.strip()):
            raise _unusable(f"policy {name!r}: version {version!r} is not a string, such as '1'")
        self.policies[name] = RegisteredPolicy(name, source, environment, data, version)

    def tokenizer(self, name: str, make: "Callable[[], Tokenizer]") -> None:
        """Add an action tokenizer: the suite fits, measures and times it beside il_bench's own.

        make: returns a new, unfitted `il_bench.tokenizers.Tokenizer` for chunks of 2-dimensional actions.
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

        Each seed is one episode: ``reset(seed=seed)``, then ``step`` until it ends, or `max_steps` times. It
        is a success if ``info["is_success"]`` is true at some step. Rewards are not read: mean_max_reward is
        the success_rate.

        Args:
            name: the `track` of its rows in the report and in a baselines file.
            make: returns the environment, whose actions are a box. It is made once and closed at the end.
            max_steps: the most steps of an episode, 1 or more.
            observe: turns one observation into the batch of one that ``select_action`` takes. By default
                observations get LeRobot's names: ``agent_pos``, or a plain array, is ``observation.state``.
        """
        if name in TRACKS:
            raise _unusable(f"environment {name!r} is a track of PushT; give yours another name")
        _check_name("environment", name, self.environments)
        _check_callable("environment", name, make)
        if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
            raise _unusable(f"environment {name!r}: max_steps {max_steps!r} is not a number from 1 up")
        self.environments[name] = RegisteredEnvironment(name, make, max_steps, observe)

    def choices(self, folder: Path) -> dict[str, PolicyChoice]:
        """The policies as --il-policy would choose them, by name; relative paths begin at `folder`."""
        return {name: policy.choice(folder) for name, policy in self.policies.items()}

    def check(self) -> None:
        """Raise IlBenchError for a policy whose environment nobody has added."""
        for policy in self.policies.values():
            if policy.environment is not None and policy.environment not in self.environments:
                known = ", ".join(self.environments) or "none"
                raise _unusable(
                    f"policy {policy.name!r}: no environment {policy.environment!r} was added "
                    f"(there is {known}); add it with registry.environment"
                )


def load(choice: PolicyChoice, registry: Registry, device: str) -> "LoadedPolicy":
    """Load a chosen policy, a project's or another.

    Raises IlBenchError if there is no such checkpoint, if it does not fit, or if a project's function returns
    no policy. An error that the function itself raises passes through.
    """
    from il_bench.policies.checkpoint import load_policy

    own = registry.policies.get(choice.label)
    if own is None:
        return replace(load_policy(choice.source, device=device), name=choice.gate_name)
    if callable(own.source):
        loaded = _made_by(own.source, own, device)
    else:  # a test that names a project's policy itself has made a choice without its path
        spec = choice.source if choice.name == own.name else str(own.source)
        loaded = load_policy(spec, device=device, track=own.environment)
    return replace(loaded, name=own.name, data=loaded.data if own.data == "unknown" else own.data)


def _made_by(make: "Callable[[str], Policy]", policy: RegisteredPolicy, device: str) -> "LoadedPolicy":
    from il_bench.policies.checkpoint import LoadedPolicy, wrap_object
    from il_bench.rollout import Policy

    made = make(device)
    if isinstance(made, LoadedPolicy):
        return replace(made, track=policy.environment or made.track)
    origin = f"{make.__module__}.{getattr(make, '__qualname__', type(make).__name__)}"
    if not isinstance(made, Policy) or isinstance(made, type):
        raise IlBenchError(
            f"policy {policy.name!r}: {origin} gave {made!r}, which has no reset() and "
            "select_action(batch); return an object with LeRobot's two methods"
        )
    return wrap_object(made, name=policy.name, checkpoint=origin, track=policy.environment)


def _check_name(kind: str, name: object, known: Mapping[str, object], also: str = "") -> None:
    if not isinstance(name, str) or not re.fullmatch(rf"[\w.\-{also}]+", name):
        raise _unusable(f"{kind} {name!r} is not a usable name; use letters, digits, '.', '_' and '-'")
    if name in known:
        raise _unusable(f"{kind} {name!r} is added twice; give one of them another name")


def _check_callable(kind: str, name: str, make: object) -> None:
    if not callable(make):
        raise _unusable(f"{kind} {name!r}: {make!r} cannot be called; give a function that makes it")


def _unusable(what: str) -> IlBenchError:
    return IlBenchError(f"pytest_il_bench_register: {what}")
