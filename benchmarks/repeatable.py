"""A pytest plugin for runs of the same tests with many faults: what hypothesis does is the same every time.

It draws the same examples, stores none, and does not shrink what failed.
"""

from hypothesis import Phase, settings


def pytest_pycollect_makemodule() -> None:
    """After conftest.py, before any test is decorated."""
    own = settings()
    phases = [phase for phase in own.phases if phase not in (Phase.shrink, Phase.explain)]
    settings.register_profile("faults", own, derandomize=True, database=None, phases=phases)
    settings.load_profile("faults")
