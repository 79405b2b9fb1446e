"""Properties of the tokenizers and of the quantizers they stand on, clause by clause.

Kinds: B uniform bins, K k-means with offset, R residual VQ (LeRobot's ``VqVae`` behind our adapter), V the
VQ-VAE and F FSQ (both on vector-quantize-pytorch), L LeRobot's own classes, P the library's own. "(x)" is a
strict xfail that says what breaks, in which version, and what it costs; the test of ours stands beside it.

| property | kinds | file |
|---|---|---|
| the chosen code is nearest, duplicates go to the lowest | B K R V F L | test_nearest, test_fast_path |
| tokens independent of order, neighbours, batch size; near ties counted | B K R V F L | test_batches |
| tokens in range, int64; bits per chunk | B K R V F | test_batches |
| quantizing a code gives that code | K R V F L(x) P(x) | test_round_trips, test_lerobot |
| encode(decode(i)) = i; share for learned coders printed | B K; share R V F | test_round_trips |
| no stage raises the squared error where codes are means | R | test_residual_stages |
| stage k sees exactly what stage k - 1 left; error after each stage | R L | test_residual_stages |
| the gradient goes straight through: identity per stage, twice it over two | L P V F | test_updates |
| commitment loss and moving averages by formula and by hand | L P V R | test_updates |
| the first update keeps codes among the points; so does a fit | L(x) P R | test_lerobot |
| codes do not move: eval, second phase, train() again, resumed | B K R V F L | test_frozen |
| codes are not placed by encoding | L(x) P(x) V | test_lerobot |
| a resumed first phase goes on where it stopped | R L(x) | test_frozen |
| dead codes are revived as documented, never when frozen | L P R V | test_updates |
| a fit uses its codebook | L(x) R | test_lerobot |
| perplexity and usage within their bounds | B K R V F | test_batches |
| centres are means of what they own, inertia never rises | K L P | test_kmeans |
| k-means + offset within 2 ulp | K | test_round_trips |
| normalise and unnormalise are inverse | il_vqbet's processors | test_normalization |
| state_dict round trip, loading into one in use, fit by seed | B K R V F | test_frozen |
| float32 and float64 agree; float64 is float64 | B K R V F L(x) P(x) | test_dtypes |
| empty, one, NaN, infinity, shape, type, range, unfitted: what is said | B K R V F L(x) | test_bad_input |
| an answer worked out by hand | B K R V F | test_by_hand |
| the fast path gives LeRobot's answer and follows the weights | R | test_fast_path |
"""

from collections.abc import Iterator
from typing import Any

import oracles
import pytest

EXEMPT, SHARES = "exempt rows", "shares"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note with each test how many rows it exempted as near ties, so that the count survives xdist."""
    oracles.EXEMPT.clear()
    oracles.SHARES.clear()
    yield
    if oracles.EXEMPT:
        item.user_properties.append((EXEMPT, dict(oracles.EXEMPT)))
    if oracles.SHARES:
        item.user_properties.append((SHARES, dict(oracles.SHARES)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the rows that were exempt, and what holds only for a share of cases."""
    reports = [report for each in terminalreporter.stats.values() for report in each]
    called = [report for report in reports if getattr(report, "when", None) == "call"]
    noted = [pair for report in called for pair in report.user_properties]
    counts = [value for key, value in noted if key == EXEMPT]
    shares = [
        f"{name}: {share:.3f}" for key, value in noted if key == SHARES for name, share in value.items()
    ]
    if not counts and not shares:
        return
    terminalreporter.section("tokenizers")
    if counts:
        rows, exempt = (sum(count.get(key, 0) for count in counts) for key in ("rows", "exempt"))
        terminalreporter.write_line(f"near ties exempt from comparison: {exempt} of {rows} rows")
    for line in shares:
        terminalreporter.write_line(line)
