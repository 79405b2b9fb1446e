"""How training runs learned: loss and success over their steps, beside those of the shipped policies."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from il_bench import zoo
from il_bench.errors import IlBenchError
from il_bench.report import page
from il_bench.report.schema import Report
from il_bench.train.log import LOG, read_rows

#: Losses of policies have scales of their own, so each is divided by its own at the first row from here on.
FIRST_STEP = 100


@dataclass(frozen=True)
class Curve:
    """A run: its success rates on validation starts, and its losses, by step.

    loss: without VQ-BeT's first phase, and without the row in which that ends, a mean over both.
    intervals: the ends of the 95 % interval of each success rate; none where a point has some dozen episodes.
    """

    name: str
    is_shipped: bool
    success: tuple[tuple[int, float], ...]
    loss: tuple[tuple[int, float], ...]
    intervals: tuple[tuple[int, float, float], ...] = ()

    def __str__(self) -> str:
        """Return for example 'runs/mine: step 5,200, loss 0.0213; success_rate 0.860 at step 4,000'."""
        if not self.loss:
            return f"{self.name}: its log has no losses of the policy yet"
        step, loss = self.loss[-1]
        said = f"{self.name}: step {step:,}, loss {loss:.4g}"
        if not self.success:
            return f"{said}; not evaluated yet"
        (at, last), (best_at, best) = self.success[-1], max(self.success, key=lambda each: each[1])
        said += f"; success_rate {last:.3f} at step {at:,}"
        return said if best <= last else f"{said}, best {best:.3f} at step {best_at:,}"


def read(run: str) -> Curve:
    """Return the curve of a run's folder, a log, or a shipped policy. Raises IlBenchError without a log."""
    is_shipped = run in zoo.shipped()
    place = zoo.ZOO / run if is_shipped else Path(run)
    path = place if place.suffix == ".csv" else place / LOG
    if not path.is_file():
        raise IlBenchError(f"{run}: there is no {LOG} in it; give the folder of a run of il-bench train")
    rows = read_rows(path, "correct or delete the line")
    policy = [row for row in rows if row.get("loss") and row.get("phase", "policy") == "policy"]
    if len(policy) < len([row for row in rows if row.get("loss")]):
        policy = policy[1:]
    return Curve(
        run,
        is_shipped,
        tuple((int(row["step"]), float(row["success_rate"])) for row in rows if row.get("success_rate")),
        tuple((int(row["step"]), float(row["loss"])) for row in policy),
    )


def read_beside_shipped(runs: Iterable[str]) -> list[Curve]:
    """Return the curves of runs, and of the shipped policies that are not among them."""
    found = [read(run) for run in dict.fromkeys(runs)]
    names = {curve.name for curve in found}
    others = [name for name in zoo.shipped() if name not in names and (zoo.ZOO / name / LOG).exists()]
    return found + [read(name) for name in others]


def of_sweep(report: Report, run: Path) -> Curve:
    """Return the curve of checkpoints in a report of `il-bench sweep`, with the losses of their run's log."""
    rates = [(int(row.policy), row.success_rate) for row in report.success]
    return Curve(
        run.name,
        is_shipped=False,
        success=tuple((step, rate.estimate) for step, rate in rates),
        loss=read(str(run)).loss if (run / LOG).is_file() else (),
        intervals=tuple((step, rate.low, rate.high) for step, rate in rates),
    )


def picture(curve: Curve) -> bytes:
    """Return the success of a curve, with its intervals, as an SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False, "svg.hashsalt": "il_bench"}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes, steps = figure.subplots(), [step for step, _ in curve.success]
        lows, highs = ([each[end] for each in curve.intervals] for end in (1, 2))
        axes.fill_between(steps, lows, highs, alpha=0.2, lw=0)
        axes.plot(steps, [rate for _, rate in curve.success], "o-", markersize=3)
        axes.set(title=curve.name, xlabel="step", ylabel="success_rate", xlim=(0, None), ylim=(0, 1.02))
        axes.grid(color="0.9")
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def render(curves: Sequence[Curve]) -> str:
    """Return a page with the curves."""
    empty = Report(created=datetime.now(UTC), environment={})
    drawn = [
        {
            "name": curve.name,
            "is_shipped": curve.is_shipped,
            "success": curve.success,
            "loss": curve.loss,
            "intervals": curve.intervals,
            "first": next((loss for step, loss in curve.loss if step >= FIRST_STEP), None),
        }
        for curve in curves
    ]
    return page.render(empty, curves=drawn, title="How runs learned")
