"""Every code has its row, its metric label and its line on the page; every row names settings that exist."""
import typing

import pytest
from msgspec import Struct

from config.settings import ROOT, Settings
from engine import metrics as m
from engine import reasons
from engine.facts import Report
from engine.telemetry import Telemetry

PAGE = (ROOT / "docs" / "reasons.md").read_text()
CODES = {name: value for name, value in vars(reasons).items()
         if name.isupper() and isinstance(value, str) and value not in reasons.SAYS}
MOVED = {**dict.fromkeys(reasons.DECISIONS, m.DECISIONS_TOTAL), **dict.fromkeys(reasons.DROPS, m.DROPPED_TOTAL),
         **dict.fromkeys(reasons.REFUSALS, m.ORDERS_REFUSED_TOTAL),
         **dict.fromkeys(reasons.UNPAID, m.REWARD_MATCH_MISS_TOTAL), reasons.PENDING_FULL: m.REWARD_PENDING_REFUSED_TOTAL}


def test_every_constant_is_one_row_of_the_table_and_no_row_is_without_one():
    codes = [r.code for r in reasons.TABLE]
    assert len(codes) == len(set(codes)) and set(codes) == set(CODES.values())
    assert len(CODES) == len(set(CODES.values())), "two names for one code"


@pytest.mark.parametrize("row", reasons.TABLE, ids=lambda r: r.code)
def test_a_code_has_a_sayer_a_meaning_settings_that_exist_a_label_and_a_line(row):
    assert row.who in reasons.SAYS and row.meaning
    for key in row.settings:
        hint: object = Settings
        for step in key.split("."):
            assert isinstance(hint, type) and issubclass(hint, Struct), key
            hint = typing.get_type_hints(hint)[step]
    series = MOVED[row.code]
    assert any(row.code in values for values in series.labels.values()), f"{series} has no label {row.code}"
    assert PAGE.count(f"| `{row.code}` | {row.meaning} |") == 1


def test_a_yes_is_no_drop_and_what_the_venue_says_drops_no_signal():
    assert not set(reasons.ALLOWED) & set(reasons.DROPS)
    assert not set(reasons.REFUSALS) & set(reasons.DROPS)
    assert set(reasons.ALLOWED) | set(reasons.DROPS) | set(reasons.REFUSALS) | set(reasons.UNPAID) == set(CODES.values())


class Counts(dict):
    """A meter that remembers."""

    def inc(self, series, by=1, **labels):
        key = series.name, *labels.values()
        self[key] = self.get(key, 0) + by


@pytest.mark.parametrize("code", reasons.REFUSALS)
def test_a_venues_refusal_is_counted_by_its_reason(code):
    counts = Counts()
    Telemetry(counts).heard(Report("E-1", "BTCUSDT", "rejected", code, 0.0, 1, 0))
    assert counts[m.ORDERS_REFUSED_TOTAL.name, code] == 1
