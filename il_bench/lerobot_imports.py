"""LeRobot without what nobody asked for, in processes that il_bench itself starts.

`import lerobot.policies` imports the configuration of every policy, and with it the package that it lies in.
Some of these packages import their networks at once: diffusers' models, transformers, the data sets. And
diffusers reads what every installed distribution holds. That is a third of what importing takes, and no
shipped policy uses it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, override

PACKAGE = "lerobot.policies"
#: Names of the modules in which LeRobot looks for a policy's network and processors.
_OF_A_POLICY = ("modeling_", "processor_")


def defer() -> None:
    """From now on, run the `__init__` of a LeRobot policy's package when somebody needs more of it.

    That is: when one of its names is asked for, or the module of its network or of its processors. So every
    policy still loads, whoever brings it. The list of distributions waits until somebody looks at it. Calling
    this twice, or after LeRobot, changes nothing.

    Only for processes of our own. In a user's pytest, imports stay as LeRobot wrote them.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the packages of LeRobot's policies, and defers what their `__init__` does."""

    def __init__(self) -> None:
        self._deferred: dict[str, _Deferred] = {}  # by the package's name, those that have not run yet

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent in self._deferred and name.startswith(_OF_A_POLICY):
            self._deferred[parent].run()
            if fullname in sys.modules:  # the package has imported it
                return ModuleSpec(fullname, _Imported(sys.modules[fullname]))
        if parent != PACKAGE and fullname not in _WHILE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None and fullname in _WHILE:
            spec.loader = _Within(spec.loader, _WHILE[fullname])
            return spec
        if spec is not None and spec.loader is not None and spec.submodule_search_locations is not None:
            spec.loader = _Deferred(spec.loader, self._deferred)
        return spec


class _Imported(Loader):
    """Loads a module that is imported already. Meanwhile it has no spec, which `import` would execute."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__
        module.__spec__ = None

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    @override
    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Deferred(Loader):
    """Makes a package at once, and runs its `__init__` later."""

    def __init__(self, real: Loader, deferred: "dict[str, _Deferred]") -> None:
        self._real, self._deferred = real, deferred
        self._module = ModuleType("")

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    @override
    def exec_module(self, module: ModuleType) -> None:
        self._module = module
        self._deferred[module.__name__] = self
        vars(module)["__getattr__"] = self._asked_for  # PEP 562

    def run(self) -> None:
        """Run the `__init__`. If it fails, as without a package it needs, the next attempt runs it again."""
        name = self._module.__name__
        del self._deferred[name], vars(self._module)["__getattr__"]
        try:
            self._real.exec_module(self._module)
        except BaseException:
            self.exec_module(self._module)
            raise

    def _asked_for(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # tools look for such names in every module
            raise AttributeError(f"module {self._module.__name__!r} has no attribute {name!r}")
        try:
            self.run()
        except ImportError as error:  # `from package import name` turns it into an ImportError again
            raise AttributeError(f"module {self._module.__name__!r} cannot be imported: {error}") from error
        return getattr(self._module, name)


class _Within(Loader):
    """Executes a module in a context."""

    def __init__(self, real: Loader, context: Callable[[], AbstractContextManager[None]]) -> None:
        self._real, self._context = real, context

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    @override
    def exec_module(self, module: ModuleType) -> None:
        with self._context():
            self._real.exec_module(module)


class _Distributions(Mapping[str, list[str]]):
    """`importlib.metadata.packages_distributions()`, read when first looked at."""

    def __init__(self, read: Callable[[], Mapping[str, list[str]]]) -> None:
        self._read = read

    @cached_property
    def _found(self) -> Mapping[str, list[str]]:
        return self._read()

    @override
    def __getitem__(self, package: str) -> list[str]:
        return self._found[package]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    @override
    def __len__(self) -> int:
        return len(self._found)


@contextmanager
def _distributions_later() -> Iterator[None]:
    read = metadata.packages_distributions
    vars(metadata)["packages_distributions"] = lambda: _Distributions(read)
    try:
        yield
    finally:
        vars(metadata)["packages_distributions"] = read


#: What to execute a module in, by its name.
_WHILE: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "diffusers.utils.import_utils": _distributions_later,
}
