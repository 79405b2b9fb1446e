"""A chosen policy, registered by a project or not, ready to be rolled out."""

from dataclasses import replace

from il_bench.errors import IlBenchError
from il_bench.plugin.registry import RegisteredPolicy, Registry
from il_bench.plugin.settings import PolicyChoice
from il_bench.policies.checkpoint import LoadedPolicy, load_policy, wrap_object
from il_bench.rollout import Policy


def load(choice: PolicyChoice, registry: Registry, device: str) -> LoadedPolicy:
    """Load the policy of a choice; a test that names a registered one itself means that one too.

    Raises:
        IlBenchError: there is no such checkpoint, it does not fit, or a project's call gives something else
            than a policy. What the call itself raises is the project's, and is not touched.
    """
    registered = registry.policies.get(choice.label)
    if registered is None:
        return replace(load_policy(choice.source, device=device), name=choice.gate_name)
    source = registered.source
    if callable(source):
        loaded = _made(registered, source(device), f"{source.__module__}.{_name(source)}")
    else:
        spec = choice.source if choice.name == registered.name else str(source)
        loaded = load_policy(spec, device=device, track=registered.environment)
    data = loaded.data if registered.data == "unknown" else registered.data
    return replace(loaded, name=registered.name, data=data)


def _made(registered: RegisteredPolicy, made: object, origin: str) -> LoadedPolicy:
    if isinstance(made, LoadedPolicy):
        return replace(made, track=registered.environment or made.track)
    if not isinstance(made, Policy) or isinstance(made, type):
        raise IlBenchError(
            f"policy {registered.name!r}: {origin} gave {made!r}, which has no reset() and "
            "select_action(batch); return an object with LeRobot's two methods"
        )
    return wrap_object(made, name=registered.name, checkpoint=origin, track=registered.environment)


def _name(source: object) -> str:
    """A function's name; an object's class."""
    return str(getattr(source, "__qualname__", type(source).__name__))
