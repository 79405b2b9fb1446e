import pytest

from il_bench.protocol import BLOCK_SIZE
from il_bench.rollout import Outcomes, rollout
from tests.rollout.policies import Wander

FIRST = 200000
SEEDS = range(FIRST, FIRST + 4 * BLOCK_SIZE)


@pytest.fixture(scope="package")
def wandered() -> Outcomes:
    return rollout(Wander(), range(FIRST, FIRST + 3 * BLOCK_SIZE))
