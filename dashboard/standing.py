"""The desk as it stands now, for the pages: what the mirror of its ledger shows, and the words that still wait for it."""
from collections.abc import Callable
from typing import TypeVar

import streamlit as st

from config.settings import Settings
from dashboard import data
from engine.facts import KILL, Control
from store import controls
from store.database import LedgerError
from store.ledger import ledger_url
from store.mirror import Mirror, Seen

T = TypeVar("T")


@st.cache_resource(show_spinner=False, max_entries=2)
def _mirror(url: str, _settings: Settings, name: int) -> Mirror:
    return Mirror(data.reader(url), _settings)


def seen() -> Seen:
    """The desk now; `Missing` where there is no ledger, or none that can be read."""
    settings = data.settings()
    url = ledger_url(settings)
    data.require(url)
    return read(lambda: _mirror(url, settings, hash(repr(settings))).look())


def read(look: Callable[[], T]) -> T:
    """What the ledger itself says; `Missing` with its words where it cannot."""
    try:
        return look()
    except LedgerError as error:
        if "no such table" in str(error) or "does not exist" in str(error):
            todo = "The risk service writes it. Run `make demo` in the project's folder."
            raise data.Missing("The ledger has no tables to read yet", todo) from None
        raise data.Missing("The ledger cannot be read", str(error)) from None


def waiting(look: Seen | None) -> list[Control]:
    """KILLs that lie in `data/controls/` and are not in the ledger yet."""
    known = look.state.controls if look else {}
    try:
        return [word for _, word in controls.left(data.settings()) if word.kind == KILL and word.id not in known]
    except OSError as error:
        raise data.Missing("The folder of words to the desk cannot be read", f"`{error}`") from None
