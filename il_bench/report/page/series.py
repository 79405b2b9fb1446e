"""How the verdicts came about, as series of points: evidence, success rates, and what no gate could see."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from il_bench.gate import Decision, check_baseline, check_target, stats
from il_bench.gate.power import CHANCE, drop_below_baseline, drop_below_target
from il_bench.gate.sequential import GateResult
from il_bench.protocol import MARGIN, MAX_EPISODES, TEST_SEEDS
from il_bench.report.schema import BaselineResult, Success
from il_bench.rollout.metrics import METRICS
from il_bench.rollout.outcomes import Outcomes

_POINTS = 160
_RATES = 40


def evidence(row: Success) -> list[dict[str, Any]]:
    """Return the evidence of a row's gates after each of its episodes, with the levels that decide."""
    found = {"target": _against_target(row), "baseline": _against_baseline(row)}
    return [_series(gate, result) for gate, result in found.items() if result is not None]


def _series(gate: str, result: GateResult) -> dict[str, Any]:
    assert result.test is not None
    values = result.test.values
    at = _some(values.size, _POINTS)
    return {
        "gate": gate,
        "n": (at + 1).tolist(),
        "fail": _round(result.test.for_fail(values)[at]),
        "pass": _round(result.test.for_pass(values)[at]),
        "fail_at": round(float(-np.log(result.test.alpha)), 3),
        "pass_at": round(float(-np.log(result.test.beta)), 3),
    }


def _against_target(row: Success) -> GateResult | None:
    target = row.target
    if target is None or not target.evidence:
        return None
    values = METRICS[target.metric].values(_outcomes(row))[:MAX_EPISODES]
    return check_target(
        values,
        target=target.value,
        margin=target.margin,
        alpha=float(np.exp(-target.evidence["fail_at"])),
        beta=float(np.exp(-target.evidence["pass_at"])),
        required=target.required,
        metric=target.metric,
    )


def _against_baseline(row: Success) -> GateResult | None:
    """The comparison again, from the seeds lost and won; None if they do not give the same evidence."""
    baseline = row.baseline
    if baseline is None or baseline.was is None or "fail_at" not in baseline.evidence:
        return None
    outcomes = _outcomes(row)
    new = outcomes.success[np.isin(outcomes.seeds, TEST_SEEDS)].astype(np.float64)
    seeds = outcomes.seeds[np.isin(outcomes.seeds, TEST_SEEDS)]
    old = new + np.isin(seeds, baseline.lost) - np.isin(seeds, baseline.won)
    if not new.size or old.min() < 0 or old.max() > 1 or abs(old.mean() - baseline.was) > 1e-6:
        return None
    alpha, beta = (float(np.exp(-baseline.evidence[level])) for level in ("fail_at", "pass_at"))
    found = check_baseline(new, old, margin=_margin(baseline), alpha=alpha, beta=beta)
    is_same = abs(found.evidence["fail"] - baseline.evidence["fail"]) < 1e-6
    return found if is_same else None


def success(row: Success) -> dict[str, Any]:
    """Return the success rate after some numbers of episodes, with its 95 % confidence sequence."""
    values = np.array([episode.success for episode in row.episodes], np.float64)
    at = _some(values.size, _RATES)
    ends = [stats.confidence_sequence(values[: i + 1]) for i in at.tolist()]
    rates = (np.cumsum(values) / (np.arange(values.size) + 1))[at]
    low, high = zip(*ends, strict=True) if ends else ((), ())
    return {"n": (at + 1).tolist(), "rate": _round(rates), "low": _round(low), "high": _round(high)}


def blind_spots(rows: Iterable[Success]) -> list[dict[str, str]]:
    """Return for each gate the smallest drop it would have found, in words."""
    found = []
    for row in rows:
        n = min(row.n_episodes, MAX_EPISODES)
        if row.target is not None and row.target.evidence and METRICS[row.target.metric].is_binary:
            declared = row.target
            alpha, beta = (float(np.exp(-declared.evidence[level])) for level in ("fail_at", "pass_at"))
            here, most = (
                drop_below_target(declared.value, declared.margin, alpha, beta, episodes)
                for episodes in (n, MAX_EPISODES)
            )
            found.append(_spot(row, f"target {declared.value:g}", n, here, most, "below the target"))
        if row.baseline is not None and row.baseline.decision is Decision.UNCHANGED:
            said = "any change at all: its episodes are reproduced to the bit"
            found.append(
                {"policy": row.policy, "gate": "baseline", "n": f"{n:,}", "here": said, "most": said}
            )
        elif row.baseline is not None and "fail_at" in row.baseline.evidence:
            alpha, beta = (float(np.exp(-row.baseline.evidence[level])) for level in ("fail_at", "pass_at"))
            here, most = (
                drop_below_baseline(_margin(row.baseline), alpha, beta, episodes)
                for episodes in (n, MAX_EPISODES)
            )
            found.append(_spot(row, "baseline", n, here, most, "of all episodes lost and none won"))
    return found


def _margin(baseline: BaselineResult) -> float:
    return MARGIN if baseline.margin is None else baseline.margin


def _spot(
    row: Success, gate: str, n: int, here: float | None, most: float | None, what: str
) -> dict[str, str]:
    def said(drop: float | None) -> str:
        return "no drop, however large" if drop is None else f"{100 * drop:.1f} points {what}"

    return {"policy": row.policy, "gate": gate, "n": f"{n:,}", "here": said(here), "most": said(most)}


#: What `blind_spots` means by finding a drop.
FOUND = f"found: the gate says FAIL in {CHANCE:.0%} of all runs"


def _outcomes(row: Success) -> Outcomes:
    return Outcomes.from_records([episode.model_dump() for episode in row.episodes])


def _some(n: int, most: int) -> NDArray[np.int64]:
    """Positions of at most about `most` of n values, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def _round(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]
