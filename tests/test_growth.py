"""What `benchmarks.growth` measures with: a market of exactly so many events, and a slope that knows a straight line from a curve."""

import math

import pytest
from builders import settings

from benchmarks.growth import Size, market, sizes_upto, slope
from engine.facts import join

S = settings()


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_slope_is_the_power_with_which_the_cost_grows(power):
    sizes = [Size(n, 1e-6 * n**power, 0, 0, 0.0, 0.0, [], []) for n in sizes_upto(1_000_000)]
    value, low, high = slope(sizes)
    assert math.isclose(value, power, rel_tol=1e-9)
    assert low <= value <= high


def test_the_streamed_market_is_the_same_however_it_is_cut_and_has_exactly_so_many_events():
    whole = join(list(market(S, 5000, 256)))
    assert whole.n == 5000
    assert join(list(market(S, 5000, 999))) == whole
