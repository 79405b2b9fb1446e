"""The machine's matrix-product rate, on a clock and a device that a test can read."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from il_bench.latency.device import device_for
from il_bench.latency.matmul import IN_A_TURN, SIZES, TURNS, MatrixProducts, dtype_of, operations

from .fakes import FakeClock, FakeDevice

EQUAL = dict.fromkeys(SIZES["cpu"], 1e9)


def products(
    rates: dict[int, float], device: FakeDevice | None = None, log: list[str] | None = None
) -> MatrixProducts:
    """On a device with so many operations a second for each size; `log` grows by a word a product."""
    where = device or FakeDevice(FakeClock(), "cpu", launch_s=0.0)

    def product(n: int) -> Callable[[], None]:
        def multiply() -> None:
            if log is not None:
                log.append("product")
            where.launch(operations(n) / rates[n])

        return multiply

    return MatrixProducts(where, torch.float32, clock=where.clock, product=product)


@pytest.mark.parametrize(
    "rates", [(1e9, 4e9, 2e9), (3e9, 3.99e9, 4e9)], ids=["the best", "a smaller one that is as good"]
)
def test_the_rate_is_the_best_sizes(rates: tuple[float, ...]) -> None:
    found = products(dict(zip(SIZES["cpu"], rates, strict=True)))
    assert found.size == SIZES["cpu"][1]
    assert found.flops_per_second == pytest.approx(rates[1])


def test_work_that_was_handed_over_before_is_not_the_products() -> None:
    device = FakeDevice(FakeClock(), "cpu", launch_s=0.0)
    found = products(EQUAL, device)
    device.launch(100.0)
    found.turn()
    assert sum(found.seconds) < 100.0
    assert found.flops_per_second == pytest.approx(1e9)


def log_of(calls: int) -> list[str]:
    """What happens when so many short calls are timed with products between them."""
    log: list[str] = []
    device = FakeDevice(FakeClock(), "cpu", launch_s=0.0)
    found = products(EQUAL, device, log)
    log.clear()

    def call() -> None:
        log.append("call")
        device.launch(0.001)

    ready = found.between(lambda: log.append("prepare"), call, calls=calls)
    for _ in range(calls):
        ready()
        log.append("timed")
    return log


def test_products_take_turns_with_the_call_which_comes_warm() -> None:
    timed = ["prepare", "timed"]
    turn = ["product"] * IN_A_TURN
    assert log_of(8) == 2 * [*turn, "prepare", "call", *4 * timed]
    many = log_of(40 * TURNS)
    assert many.count("product") == TURNS * IN_A_TURN
    assert many.count("timed") == 40 * TURNS


def test_a_slower_moment_of_the_machine_moves_the_floor_with_it() -> None:
    rates = EQUAL | {}
    found = products(rates)
    rates.update(dict.fromkeys(rates, 0.5e9))
    for _ in range(3):
        found.turn()
    assert found.flops_per_second == pytest.approx(0.5e9)


def test_real_products_on_the_cpu_are_faster_than_no_machine() -> None:
    found = MatrixProducts(device_for("cpu"), torch.float32)
    found.turn()
    assert 1e8 < found.flops_per_second < 1e14


def test_the_type_is_most_parameters() -> None:
    network = nn.Sequential(nn.Linear(8, 8).to(torch.bfloat16), nn.Linear(2, 2))
    assert dtype_of(network) == torch.bfloat16
    assert dtype_of(object()) == torch.float32
