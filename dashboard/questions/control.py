"""Does it trade, and how do I stop it?"""
import getpass
import subprocess
import sys

import pandas as pd
import streamlit as st

from config.settings import ROOT
from dashboard import data, standing, tables, ui
from engine.facts import KILL, RELEASE, Control
from store import killing
from store.mirror import Seen

SWEEP_S = 15
GATES = (ui.Column("", lambda r: ui.GATE_SIGNS[r.state], tone=lambda r: ui.GATE_TONES[r.state]), ui.Column("gate", lambda r: r.name),
         ui.Column("state", lambda r: r.state, tone=lambda r: ui.GATE_TONES[r.state]), ui.Column("numbers", lambda r: r.words))
STANDS = (ui.Column("KILL", lambda r: r.id), ui.Column("who and why", lambda r: r.word, tone=lambda r: "loss"),
          ui.Column("when", lambda r: r.when, tone=lambda r: "muted"), ui.Column("where", lambda r: r.where, tone=lambda r: "muted"))


def looked() -> tuple[Seen | None, str, list[Control]]:
    """The desk, or why it cannot be seen; and the KILLs that wait for it."""
    try:
        seen = standing.seen()
        return seen, "", standing.waiting(seen)
    except data.Missing as missing:
        return None, missing.what, standing.waiting(None)


@ui.live(2)
def head() -> None:
    """What the desk is in, in one sentence."""
    seen, why, waits = looked()
    ui.headline("Does it trade, and how do I stop it?", market_ms=(seen.state.now_ms or None) if seen else None)
    if seen:
        ui.trading(seen, data.settings(), waits, strip=False)
    else:
        ui.verdict("warn", f"{why}.", "What the desk is in cannot be shown; a KILL can be given all the same, and waits for it.")
    given()


@ui.live(2)
def state() -> None:
    """Each gate with its numbers, and the KILLs that stand."""
    seen, _, waits = looked()
    left, right = st.columns([1.25, 1])
    with left.container(key="panel-gates", height="stretch"):
        ui.heading("Between a signal and an order", "in the order in which a signal meets them; market time")
        rows = ui.gates_of(seen, data.settings(), waits) if seen else []
        ui.table(pd.DataFrame([g._asdict() for g in rows]), GATES, "Unknown without a ledger.")
    with right.container(key="panel-kills", height="stretch"):
        ui.heading("KILLs", "each halts by itself, until a release names it")
        ui.table(stands(seen.state.kills if seen else {}, waits), STANDS, "None stands.")


def stands(kills: dict[str, str], waits: list[Control]) -> pd.DataFrame:
    """The KILLs as a table, those first that the desk has not taken."""
    rows = [{"id": w.id, "word": w.word, "when": "", "where": "waits in data/controls/: NOT yet taken by the desk"} for w in waits]
    try:
        known = data.controls().set_index("id")["ts_ms"].to_dict()
    except data.Missing:
        known = {}
    rows += [{"id": name, "word": word, "when": ui.clock(known[name]) if known.get(name) else "", "where": "in the desk's ledger"}
             for name, word in kills.items()]
    return pd.DataFrame(rows)


def given() -> None:
    """What became of the word that this browser gave last."""
    word: killing.Given | None = st.session_state.get("given")
    if word is None:
        return
    for fault in word.faults:
        st.error(fault)
    if swept := st.session_state.get("swept", ""):
        st.info(swept)
    if not word.places:
        st.error(f"{word.fact.id}: nobody will hear it. Nothing was changed.")
        return
    heard = killing.heard(data.settings(), word.fact)
    places = ", ".join(word.places)
    if not heard.taken:
        st.warning(f"{word.fact.id} ({places}): NOT yet taken by the desk: {heard.why}")
    elif left := heard.left_of(word.fact):
        st.warning(f"{word.fact.id}: in the desk's ledger; {', '.join(left)} stands all the same: it was told again since")
    else:
        st.success(f"{word.fact.id} ({places}): in the desk's ledger; "
                   + (f"halted: {'; '.join(heard.kills.values())}" if heard.kills else "nothing halts it"))


def faults(actor: str, reason: str, typed: str, word: str) -> list[str]:
    """What is missing before a word can be given."""
    found = [f"{what} is empty; it stands in the ledger" for what, said in (("Who", actor), ("Why", reason)) if not said.strip()]
    return found + ([f"Type {word} to confirm: {typed!r} is something else"] if typed.strip() != word else [])


def kill_form() -> None:
    """Halts the desk."""
    with st.form("kill", clear_on_submit=False, border=False):
        ui.heading("Halt the desk", "entries are taken back, exits go on, nothing is opened until a release names the KILL")
        one, two, three = st.columns([1, 2, 1])
        actor = one.text_input("Who", value=getpass.getuser(), key="kill_actor")
        reason = two.text_input("Why", key="kill_reason", placeholder="it stands in the ledger")
        typed = three.text_input(f"Type {KILL}", key="kill_typed")
        if not st.form_submit_button("Halt", type="primary", key="kill_go"):
            return
        if wrong := faults(actor, reason, typed, KILL):
            st.error("\n\n".join(wrong))
            return
        with st.spinner("It lies in data/controls/ for the desk; telling the broker …"):
            sweeping = subprocess.Popen([sys.executable, "-m", "scripts.sweep"], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)     # as the command does: the executor may hang with the desk
            st.session_state["given"] = killing.kill(data.settings(), actor.strip(), reason.strip())
            try:
                st.session_state["swept"] = sweeping.communicate(timeout=SWEEP_S)[0].strip()
            except subprocess.TimeoutExpired:
                sweeping.kill()
                st.session_state["swept"] = f"the venue was not asked for entries back within {SWEEP_S} s"
    st.rerun()


def release_form() -> None:
    """Ends the KILLs that it names."""
    seen, _, _ = looked()
    kills = seen.state.kills if seen else {}
    with st.form("release", clear_on_submit=False, border=False):
        ui.heading("Release", "ends the KILLs that are named, and no others; by the broker alone")
        named = st.multiselect("KILLs that end", list(kills), key="release_kills", format_func=lambda i: f"{i}: {kills.get(i, '')}",
                               placeholder="which" if kills else "none stands in the desk's ledger")
        one, two, three = st.columns([1, 2, 1])
        actor = one.text_input("Who", value=getpass.getuser(), key="release_actor")
        reason = two.text_input("Why", key="release_reason", placeholder="it stands in the ledger")
        typed = three.text_input(f"Type {RELEASE}", key="release_typed")
        if not st.form_submit_button("Release", key="release_go"):
            return
        wrong = faults(actor, reason, typed, RELEASE) + ([] if named else ["Name the KILLs that end"])
        if wrong:
            st.error("\n\n".join(wrong))
            return
        with st.spinner("Telling the broker …"):
            st.session_state["swept"] = ""
            st.session_state["given"] = killing.release(data.settings(), actor.strip(), reason.strip(), named)
    st.rerun()


@ui.live(5)
def history() -> None:
    """The newest words to the desk."""
    with st.container(key="panel-controls"):
        ui.heading("Controls", "kills, releases, health and mode, newest first")
        ui.table(data.controls().head(20), tables.CONTROLS, "None was given yet.")


head()
with st.container(key="panel-kill"):
    kill_form()
state()
with st.container(key="panel-release"):
    release_form()
history()
