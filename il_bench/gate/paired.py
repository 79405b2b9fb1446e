"""Two policies on the same seeds: whether a difference in their success rates is shown."""

from dataclasses import dataclass

from scipy import stats as scipy_stats

from il_bench.errors import IlBenchError


@dataclass(frozen=True)
class PairedDifference:
    """Seeds that only one of two policies solved, `lost` by the new one and `won` by it, of n.

    p: the probability of a split at least as uneven if both were equally good (McNemar's exact test, 1947).
    """

    n: int
    lost: int
    won: int
    p: float

    def is_shown(self, risk: float) -> bool:
        """Whether the difference is shown, at this risk of being wrong about equally good policies."""
        return self.p < risk


def difference(lost: int, won: int, n: int) -> PairedDifference:
    """Compare two policies by the seeds whose outcome differs."""
    if min(lost, won) < 0 or lost + won > n:
        raise IlBenchError(f"lost = {lost}, won = {won} of n = {n} seeds: need 0 <= lost + won <= n")
    flipped = lost + won
    p = float(scipy_stats.binomtest(lost, flipped, 0.5).pvalue) if flipped else 1.0
    return PairedDifference(n, lost, won, p)
