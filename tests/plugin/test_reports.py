"""Plugins that write test reports carry what we know of a test. They are not in the locked environment."""

import json

import pytest

from tests.conftest import Run

GATED = """
    import numpy as np
    from il_bench.rollout import Outcomes

    def test_mine(gate):
        ones = np.ones(50, int)
        success = np.arange(50) < 45
        gate(Outcomes(200_000 + np.arange(50), success, success.astype(float), ones, 0 * ones), target=0.7)

    def test_other():
        pass
"""
pytestmark = pytest.mark.usefixtures("clean_environment")


def test_pytest_reportlog_has_every_property(pytester: pytest.Pytester, light: Run) -> None:
    pytest.importorskip("pytest_reportlog")
    pytester.makepyfile(GATED)
    light("-p", "pytest_reportlog.plugin", "--report-log=log.jsonl").assert_outcomes(passed=2)
    lines = [json.loads(line) for line in (pytester.path / "log.jsonl").read_text().splitlines()]
    (found,) = (
        dict(each["user_properties"])
        for each in lines
        if each.get("when") == "call" and "mine" in each["nodeid"]
    )
    assert (found["il_bench.decision"], found["il_bench.success_rate"]) == ("PASS", "0.9")


def test_pytest_html_shows_them_as_a_table(pytester: pytest.Pytester, light: Run) -> None:
    pytest.importorskip("pytest_html")
    pytester.makepyfile(GATED)
    plugins = ("-p", "pytest_metadata.plugin", "-p", "pytest_html.plugin")
    light(*plugins, "--html=report.html", "--self-contained-html").assert_outcomes(passed=2)
    page = (pytester.path / "report.html").read_text()
    assert page.count("il_bench.decision") == 1 and "&amp;gt; 0.65 shown" in page
