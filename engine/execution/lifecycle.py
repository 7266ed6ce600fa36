"""The life of an order: every state × every event → the next state, or a fault by name.

The table is the specification; `engine/portfolio.py` is the fold that trades, and a test holds the two together over random histories.
Reports and fills travel apart, so an order that the venue has ended may still have fills on their way (`ending`); an end state is left by
nothing. Quantity that the order has no room for is counted in `beyond` and never hidden.
"""
import msgspec

from engine.facts import ACCEPTED as TAKEN
from engine.facts import CANCELLED as TAKEN_BACK
from engine.facts import DONE, REJECTED, Fill, Report
from engine.facts import UNKNOWN as IN_DOUBT
from engine.portfolio import Working
from engine.reasons import DUPLICATE_ORDER, NOT_FOUND, REQUESTED

NEW, SENT, UNKNOWN, ACCEPTED, PARTLY_FILLED, CANCEL_ASKED, ENDING = (
    "new", "sent", "unknown", "accepted", "partly filled", "cancel asked", "ending")
FILLED, CANCELLED, REFUSED, EXPIRED = "filled", "cancelled", "rejected", "expired"
ENDS = (FILLED, CANCELLED, REFUSED, EXPIRED)
STATES = (NEW, SENT, UNKNOWN, ACCEPTED, PARTLY_FILLED, CANCEL_ASKED, ENDING, *ENDS)
MEANS = {
    NEW: "no order of ours, or not sent yet",
    SENT: "on its way, without the venue's word",
    UNKNOWN: "handed over, and nobody can say whether it arrived: asked about by its id, sent again only under it",
    ACCEPTED: "rests, nothing filled",
    PARTLY_FILLED: "something is filled and the venue has not ended it; also when all of it is filled and the report is on its way",
    CANCEL_ASKED: "asked back; may still be filled, and is asked again until answered",
    ENDING: "ended by the venue, with fills of it on their way",
    FILLED: "all of it is filled",
    CANCELLED: "taken back, with what was filled until then",
    REFUSED: "the venue or the executor did not take it",
    EXPIRED: "the venue ended it by itself: a market order's rest, or nothing left to reduce",
}

SEND, ACCEPT, FILL, LAST_FILL, DONE_EVENT, CANCEL, REJECT, EXPIRE, END_EARLY, ASK, DOUBT, FOUND, MISSING = (
    "send", "accept", "fill", "last fill", "done", "cancelled", "reject", "expire", "end before its fills", "ask cancel", "doubt", "found",
    "not found")
AGAIN, SAME_FILL, ABOUT_REQUEST, TOO_MUCH = "accept again", "same fill", "word on a request", "fill beyond the order"
EVENTS = (SEND, ACCEPT, FILL, LAST_FILL, DONE_EVENT, CANCEL, REJECT, EXPIRE, END_EARLY, ASK, DOUBT, FOUND, MISSING,
          AGAIN, SAME_FILL, ABOUT_REQUEST, TOO_MUCH)

NOT_OURS, SENT_TWICE, REPEATED, AFTER_END, FILL_AFTER_END, OVERFILL, VANISHED, OUT_OF_PLACE = (
    "not ours", "sent twice", "repeated", "after the end", "fill after the end", "overfill", "vanished", "out of place")
FAULTS = {
    NOT_OURS: "no order of this id was sent: an orphan",
    SENT_TWICE: "an order is sent once; again only while it has no word from the venue",
    REPEATED: "said before: passed over",
    AFTER_END: "a word about an order that has ended: passed over",
    FILL_AFTER_END: "more was filled than the venue had said when it ended the order: booked as a position, and counted",
    OVERFILL: "more was filled than was ordered: booked as a position, and counted",
    VANISHED: "the venue had taken it and does not know it any more: the comparison with the venue halts the desk",
    OUT_OF_PLACE: "cannot follow from this state",
}


_NAMES = {"send": SEND, "accept": ACCEPT, "fill": FILL, "doubt": DOUBT, "missing": MISSING, "again": AGAIN, "same_fill": SAME_FILL}


def _live(here: str, **other: str) -> dict[str, str]:
    """What all states at the venue have in common; `other` by the names in `_NAMES`."""
    row = {SEND: SENT_TWICE, ACCEPT: here, FILL: PARTLY_FILLED, LAST_FILL: OUT_OF_PLACE, DONE_EVENT: FILLED, CANCEL: CANCELLED,
           REJECT: REFUSED, EXPIRE: EXPIRED, END_EARLY: ENDING, ASK: CANCEL_ASKED, DOUBT: here, FOUND: here, MISSING: VANISHED,
           AGAIN: REPEATED, SAME_FILL: REPEATED, ABOUT_REQUEST: REPEATED, TOO_MUCH: OVERFILL}
    return row | {_NAMES[name]: to for name, to in other.items()}


_ENDED = dict.fromkeys(EVENTS, AFTER_END) | {SEND: SENT_TWICE, FILL: FILL_AFTER_END, LAST_FILL: OUT_OF_PLACE, SAME_FILL: REPEATED,
                                                   TOO_MUCH: OVERFILL, ABOUT_REQUEST: REPEATED}
TABLE: dict[str, dict[str, str]] = {
    NEW: dict.fromkeys(EVENTS, NOT_OURS) | {SEND: SENT},
    SENT: _live(SENT, send=SENT, accept=ACCEPTED, doubt=UNKNOWN, missing=SENT, again=OUT_OF_PLACE, same_fill=OUT_OF_PLACE),
    UNKNOWN: _live(UNKNOWN, send=UNKNOWN, accept=ACCEPTED, missing=UNKNOWN, again=OUT_OF_PLACE, same_fill=OUT_OF_PLACE),
    ACCEPTED: _live(ACCEPTED, accept=OUT_OF_PLACE, same_fill=OUT_OF_PLACE),
    PARTLY_FILLED: _live(PARTLY_FILLED),
    CANCEL_ASKED: _live(CANCEL_ASKED, fill=CANCEL_ASKED, missing=CANCEL_ASKED),
    ENDING: _ENDED | {FILL: ENDING, LAST_FILL: "its end"},
    **dict.fromkeys(ENDS, _ENDED),
}


EVENT_OF = {FILLED: DONE_EVENT, CANCELLED: CANCEL, REFUSED: REJECT, EXPIRED: EXPIRE}


def end_of(status: str, reason: str = "") -> str:
    """The end state that a report of this status leads to."""
    if status == REJECTED:
        return REFUSED
    if status == DONE:
        return FILLED
    return CANCELLED if reason in (REQUESTED, "") else EXPIRED


def state_of(order: Working | None, asked: bool, reason: str = "") -> str:
    """The state of an order in the Desk's books; `asked`: its cancel is on its way, `reason` that of the report that ended it."""
    if order is None:
        return NEW
    if order.told >= 0:
        return end_of(order.status, reason) if order.settled else ENDING
    if asked:
        return CANCEL_ASKED
    if order.filled:
        return PARTLY_FILLED
    if order.accepted:
        return ACCEPTED
    return UNKNOWN if order.status == IN_DOUBT else SENT


class Life(msgspec.Struct):
    """One order's life. Quantities in base units: `filled` never exceeds `qty`; `beyond` is what was filled and has no room in it.

    `told` is the filled quantity that the venue ended it with, -1 before; `end` the state that the last fill leads to.
    """
    id: str
    qty: float
    state: str = NEW
    filled: float = 0.0
    beyond: float = 0.0
    told: float = -1.0
    accepted: bool = False
    end: str = ""
    seen: list[str] = []
    faults: dict[str, int] = {}

    def on(self, event: str) -> str:
        """Moves by an event; the new state, or the fault, which leaves the state as it is."""
        to = TABLE[self.state][event]
        if to in FAULTS:
            self.faults[to] = self.faults.get(to, 0) + 1
            return to
        self.state = to if to in TABLE else self.end
        return self.state

    def on_report(self, report: Report) -> str:
        """The venue's (or the executor's) word."""
        event = self._said(report)
        before = self.state
        to = self.on(event)
        if to in FAULTS:
            return to
        self.accepted |= event == ACCEPT
        if to == ENDING or (to in ENDS and before not in ENDS):
            self.told, self.end = report.filled, end_of(report.status, report.reason)
        return to

    def on_fill(self, fill: Fill) -> str:
        """An execution; by its id it counts once."""
        if fill.id in self.seen:
            return self.on(SAME_FILL)
        room = self.filled + fill.qty <= self.qty + 1e-12
        last = self.state == ENDING and self.filled + self.beyond + fill.qty >= self.told - 1e-12
        to = self.on(TOO_MUCH if not room else LAST_FILL if last else FILL)
        if to != NOT_OURS:
            self.seen.append(fill.id)
            if to in FAULTS:
                self.beyond += fill.qty
            else:
                self.filled = min(self.qty, self.filled + fill.qty)
        return to

    def _said(self, report: Report) -> str:
        """The event that a report is, in the light of what is known of the order."""
        if report.reason in (DUPLICATE_ORDER, NOT_FOUND):
            return ABOUT_REQUEST
        if report.status == TAKEN:
            return AGAIN if self.accepted else ACCEPT
        if report.status not in (DONE, TAKEN_BACK, REJECTED):
            return DOUBT
        if self.filled + self.beyond < report.filled - 1e-12:
            return END_EARLY
        return EVENT_OF[end_of(report.status, report.reason)]



def markdown() -> list[str]:
    """The table as the page shows it: an event a row, a state a column; faults in italics, the end states are alike."""
    columns = [*STATES[:-len(ENDS)], "an end"]
    out = ["| event | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for event in EVENTS:
        cells = [TABLE[FILLED if column == "an end" else column][event] for column in columns]
        out.append(f"| **{event}** | " + " | ".join(f"*{c}*" if c in FAULTS else c for c in cells) + " |")
    out += ["", "| state | |", "|---|---|", *(f"| {state} | {MEANS[state]} |" for state in STATES)]
    return [*out, "", "| fault | |", "|---|---|", *(f"| *{fault}* | {why} |" for fault, why in FAULTS.items())]
