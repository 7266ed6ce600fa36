"""Where do we stand, and is it healthy?"""
import streamlit as st

from dashboard import data, health, standing, tables, ui
from engine import facts
from store import figures

ROLLING = 50


@ui.live(2)
def pulse(run: str) -> None:
    """The head of the page: clocks, verdict, route."""
    vitals = data.vitals()
    ui.headline("Where do we stand, and is it healthy?", run, latest_ms(run), active_model())
    ui.verdict(*answer(vitals))
    source = data.settings().exchange
    ui.route(vitals, source.recording or source.market, f"× {source.speed}")


def latest_ms(run: str) -> float | None:
    """Market time of the newest decision or fill; None without a ledger."""
    try:
        newest = [t["ts_ms"].iloc[0] for t in (data.decisions(run, most=1), data.fills(run)) if len(t)]
    except data.Missing:
        return None
    return max(newest, default=None)


def kills_in_force() -> dict[str, str]:
    """The KILLs that stand, by id with who and why; nothing where the ledger cannot be read, which other parts of the page say."""
    try:
        return standing.seen().state.kills
    except data.Missing:
        return {}


@ui.live(2)
def state() -> None:
    """All that stands between a signal and an order."""
    seen = standing.seen()
    if seen.at:
        ui.trading(seen, data.settings(), standing.waiting(seen))


def active_model() -> str:
    """The id of the model that trades; empty where there is none, or the registry cannot be read (its own page says why)."""
    try:
        return data.models()[0].get("active", "")
    except data.Missing:
        return ""


def answer(vitals: health.Vitals) -> tuple[str, str, str]:
    """Tone, sentence and the rest of it."""
    if not vitals.answered:
        return ("bad", "The services are down.", f"Nobody answers on the metrics ports ({data.settings().ports.metrics} and up): "
                "make demo starts everything. What stands below is what the ledger remembers.")
    if vitals.halted:
        kills = kills_in_force()
        return ("bad", "Halted: a kill is in force." if len(kills) < 2 else f"Halted: {len(kills)} kills are in force.",
                " · ".join(["Nothing is opened; positions are being closed", *(f"{why} ({name})" for name, why in kills.items()),
                            "Does it trade? (or python -m scripts.release_kill) ends it"]))
    sick = vitals.sick()
    if sick:
        return ("warn", f"{len(vitals.lights) - len(sick)} of {len(vitals.lights)} services are ready.",
                " · ".join(f"{ui.NAMES[s.service]}: {s.why}" for s in sick))
    slow = f"tick to order p99 {ui.number(vitals.tick_to_order_p99_ms, 1)} ms" if vitals.tick_to_order_p99_ms is not None else ""
    errors = f"{vitals.errors:,.0f} records failed" if vitals.errors else ""
    return ("warn" if errors else "good", f"Healthy: all {len(vitals.lights)} services are ready.",
            " · ".join(filter(None, (f"market data {ui.number(vitals.market_age_ms, 0)} ms old", slow, "no kill in force", errors))))


@ui.live(2)
def money(run: str) -> None:
    """The figures that an operator asks for first."""
    settings, vitals = data.settings(), data.vitals()
    closed, counts, fills, held = data.outcomes(run), data.decision_counts(run), data.fill_counts(run), data.positions()
    sums, start = data.outcome_sums(run), settings.desk.equity_usd
    net, gross, fees = (float(sums[name]) for name in ("net_usd", "gross_usd", "fees_usd"))
    last = closed.tail(ROLLING)
    won = float((last["net_usd"] > 0).mean()) if len(last) else None
    n_fills, maker = int(fills["n"].sum()), int(fills.loc[fills["maker"].astype(bool), "n"].sum())
    decided, allowed = int(counts["n"].sum()), int(counts.loc[counts["allowed"].astype(bool), "n"].sum())
    open_now = int((held.loc[~held["symbol"].str.endswith(" twin"), "qty"].abs() > 1e-12).sum())
    exposure = vitals.exposure_usd if vitals.answered else None
    ui.cards([
        ui.Card("Equity, realised", ui.number(start + net), "USD", f"started with {start:,.0f} · {net / start:+.2%}".replace("-", "−")),
        ui.Card("Net result", ui.usd(net), "USD", f"{ui.usd(gross)} before fees − {fees:,.2f} fees", ui.tone(round(net, 2))),
        ui.Card("Won", "–" if won is None else f"{won:.0%}", f"of last {len(last)}" if len(last) else "",
                f"{sums['n']:,.0f} trades closed" if sums["n"] else "no trade closed yet", share=won or 0),
        ui.Card("Fills", f"{n_fills:,}", "", f"{maker / n_fills:.0%} as maker" if n_fills else "no fill yet",
                share=maker / n_fills if n_fills else 0),
        ui.Card("Positions", f"{open_now}", "open",
                "margin: services down" if exposure is None else f"{ui.number(exposure)} USD margin bound"),
        ui.Card("Allowed", f"{allowed:,}", f"of {decided:,}", f"{decided - allowed:,} refused, each with a reason",
                share=allowed / decided if decided else 0),
    ])
    if len(apart := data.apart_sums(run)):
        said = {facts.TWIN: "paper twins of real entries", "paper": "on paper after a CRIT"}
        st.html('<div class="none">Counted apart, in none of these figures: ' + " · ".join(
            f"{said.get(r.route, r.route)}: {r.n:,} closed, {ui.usd(r.net_usd)} USD net" for r in apart.itertuples()) + "</div>")


@ui.live(5)
def pictures(run: str) -> None:
    """The curve, and what explains it."""
    closed, counts, fills = data.outcomes(run), data.decision_counts(run), data.fill_counts(run)
    refused = int(counts.loc[~counts["allowed"].astype(bool), "n"].sum())
    left, right = st.columns([2, 1])
    with left.container(key="panel-equity", height="stretch"):
        ui.heading("Equity", "realised, market time UTC · the shaded gap is what the fees cost")
        earlier = data.outcome_sums(run)["net_usd"] - float(closed["net_usd"].sum())   # before the newest that are drawn
        ui.chart(figures.equity_curve(closed, data.settings().desk.equity_usd + earlier, 292), "equity")
    with right.container(key="panel-drops", height="stretch"):
        ui.heading("Refused, by reason", f"{refused:,} candidates")
        ui.chart(figures.drops_by_reason(counts, 292), "drops")
    one, two, three = st.columns(3)
    with one.container(key="panel-exits", height="stretch"):
        ui.heading("Exits by cause", "trades · what they brought net")
        ui.chart(figures.exits_by_cause(closed, 170), "exits")
    with two.container(key="panel-regime", height="stretch"):
        ui.heading("Net result by regime", "at the entry")
        ui.chart(figures.pnl_by_regime(closed, 170), "regime")
    with three.container(key="panel-liquidity", height="stretch"):
        turnover = float(fills["turnover_usd"].sum()) if len(fills) else 0.0
        ui.heading("Maker and taker", f"turnover {turnover:,.0f} USD")
        ui.chart(figures.fills_by_liquidity(fills, 170), "liquidity")


@ui.live(2)
def book(run: str) -> None:
    """What we hold, what waits at the venue, what just happened."""
    one, two, three = st.columns([0.9, 1.15, 1.05])
    with one.container(key="panel-positions", height="stretch"):
        held = data.positions()
        ui.heading("Positions", "signed, base units")
        held = held.assign(apart=held["symbol"].str.endswith(" twin"), flat=held["qty"].abs() < 1e-12)
        ui.table(held.sort_values(["apart", "flat"], kind="stable"), tables.POSITIONS, "Nothing held, nothing traded yet.")
    with two.container(key="panel-orders", height="stretch"):
        waiting = data.orders(run, waiting=True, most=8)
        ui.heading("Open orders", "waiting at the venue")
        ui.table(waiting, tables.ORDERS, "No order waits at the venue.")
    with three.container(key="panel-fills", height="stretch"):
        ui.heading("Latest fills", "market time, UTC")
        ui.table(data.fills(run).head(8), tables.FILLS, "No fill yet.")


@ui.live(2)
def verdicts(run: str) -> None:
    """The newest decisions, with their numbers."""
    with st.container(key="panel-decisions"):
        head, verdict, symbol, code = st.columns([2.2, 1.2, 1.3, 1.6], vertical_alignment="center")
        with head:
            ui.heading("Decisions", "the newest 100, allowed and refused, with the numbers behind them")
        counts = data.decision_counts(run)
        said = verdict.segmented_control("Verdict", ["all", "allowed", "refused"], default="all", label_visibility="collapsed",
                                         key="desk_verdict")
        symbols = symbol.multiselect("Symbol", sorted(data.settings().exchange.symbols), placeholder="any symbol",
                                     label_visibility="collapsed", key="desk_symbol")
        codes = code.multiselect("Code", list(counts["code"].unique()), placeholder="any reason", label_visibility="collapsed",
                                 key="desk_code")
        tables.decisions(data.decisions(run, said or "all", tuple(symbols), tuple(codes), 100))


if ui.waits_for(data.runs):
    chosen = ui.choose_run()
    pulse(chosen)
    state()
    money(chosen)
    pictures(chosen)
    book(chosen)
    verdicts(chosen)
else:
    pulse("")
