"""A CRIT as its command confirms it: in the desk's ledger, and whether it changed anything there."""
import time

import msgspec
import pytest

from engine.facts import CRIT, KILL, RELEASE, Control, releasing
from scripts.kill import confirm
from tests.desks import Written, levelled


@pytest.fixture
def desk(tmp_path):
    url = f"sqlite:///{tmp_path}/desk.db"
    settings = levelled(real=True)
    made = Written(url, msgspec.structs.replace(settings, ledger=msgspec.structs.replace(settings.ledger, url=url)))
    made.market()
    yield made
    made.ledger.close()


def given(desk: Written, name: str, kind: str, **details: str) -> Control:
    fact = Control(name, kind, "ann", "venue answers slowly", 0, desk.now, details)
    desk.control(fact)
    return fact


def test_a_crit_that_acts_ends_with_0_and_one_under_a_kill_says_that_it_changed_nothing(desk, capsys):
    first = given(desk, "c1", CRIT)
    assert desk.desk.state.safe.base and confirm(desk.settings, first, time.monotonic() + 9, ["x"]) == 0
    assert capsys.readouterr().err == ""
    until_ms = desk.desk.state.safe.until_ms
    desk.market(later_ms=1000)
    given(desk, "k1", KILL)
    assert confirm(desk.settings, first, time.monotonic() + 9, ["x"]) == 0       # it was there before the kill
    vain = given(desk, "c2", CRIT)
    assert desk.desk.state.safe.until_ms == until_ms
    given(desk, "r1", RELEASE, **releasing(["k1"]))
    capsys.readouterr()
    assert confirm(desk.settings, vain, time.monotonic() + 9, ["x"]) == 1
    assert "c2 changed nothing: a KILL stood" in capsys.readouterr().err
    assert confirm(desk.settings, given(desk, "c3", CRIT), time.monotonic() + 9, ["x"]) == 0


def test_a_crit_of_a_desk_that_does_not_switch_says_which_setting_keeps_it(desk, capsys):
    off = msgspec.structs.replace(desk.settings, fail_safe=msgspec.structs.replace(desk.settings.fail_safe, switch_to_paper_on_crit=False))
    assert confirm(off, given(desk, "c1", CRIT), time.monotonic() + 9, ["x"]) == 1
    assert "fail_safe.switch_to_paper_on_crit is false" in capsys.readouterr().err
