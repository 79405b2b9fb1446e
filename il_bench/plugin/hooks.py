"""The hooks of pytest that il_bench adds: functions that a project's plugin or root conftest.py may define.

Read by every pytest run of everybody who has il_bench installed: standard library only.
"""

from il_bench.plugin.registry import Registry


def pytest_il_bench_register(registry: Registry) -> None:
    """Add policies, action tokenizers and gymnasium environments to the suite.

    Called once a run, when the options have been read; under pytest-xdist also by every worker. Give loaders
    and factories, and import what is heavy inside them: this is called also where nothing is measured.

    A project that is to work without il_bench too marks its own function
    ``@pytest.hookimpl(optionalhook=True)``.
    """
