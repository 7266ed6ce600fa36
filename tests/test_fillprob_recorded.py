"""FillModelV1 on a recorded day that it was not fitted to, beside S1's formula and the base rate."""
import numpy as np
import pytest

from config.settings import load
from engine.facts import cut
from engine.fillprob.evaluation_v1 import bins, measured
from store import fill_training, virtual_orders
from tests.markets import standx

pytestmark = pytest.mark.recorded
S = load(env={})


@pytest.fixture(scope="module")
def orders(recordings) -> list[virtual_orders.Orders]:
    """Some hours of one day, and of the next."""
    parts = [cut(standx(recordings, day), 0, events) for day, events in (("2026-01-06", 120_000), ("2026-01-07", 60_000))]
    return [virtual_orders.of_table(virtual_orders.made([part], S, many, 1337).table) for part, many in zip(parts, (30_000, 12_000))]


@pytest.fixture(scope="module")
def model(orders):
    return fill_training.fit(orders[0], 1337)


def test_a_model_of_one_day_ranks_the_next_days_orders_and_may_be_taken_at_its_word(orders, model):
    later = orders[1]
    got = measured(model.bps(later.rows), later.y)
    assert got["auc"] > 0.8 and got["brier"] < 0.8 * got["brier_base"] and got["ece"] < 0.05
    for row in bins(model.bps(later.rows), later.y):
        assert row["n_samples"] < 150 or row["error_bps"] < 1200, row
    for chosen in (later.candidate, ~later.candidate):
        part = measured(model.bps(later.rows[chosen]), later.y[chosen])
        assert part["auc"] > 0.78 and part["brier"] < 0.85 * part["brier_base"]


def test_orders_behind_the_recorded_queue_are_filled_less_often_the_further_back_they_stand(orders):
    o = orders[0]
    behind = o.rows[:, virtual_orders.NAMES.index("behind_bps")]
    rest = o.horizon_ms == 20_000
    rates = [float(o.y[rest & (behind >= low) & (behind < high)].mean()) for low, high in ((-9, 0.001), (0.001, 0.5), (0.5, 2), (2, 99))]
    assert rates == sorted(rates, reverse=True) and rates[0] > 3 * rates[-1]
    shares = np.array([o.y[rest].mean(), o.y[~rest & (o.horizon_ms < 5000)].mean()])
    assert shares[0] > shares[1]
