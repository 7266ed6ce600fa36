"""A model's card: what it was trained on, what it is worth out of sample, and what a fill earns. Figures in, Markdown out."""
from datetime import UTC, datetime
from typing import Any

from config.settings import Settings


def card(identity: str, created_at: str, metrics: dict[str, Any], settings: Settings, source: str) -> str:
    """`model_card.md` of a registry entry; every figure is of the purged test part unless it says otherwise."""
    m, tau = metrics, metrics["tau_entry"]
    label, triggers = settings.labels, settings.triggers
    return f"""# Model {identity}

Created {created_at} from `{source or 'a table of labelled rows'}`.

**{edge(m)}**

## What it says

The probability that a candidate, once the paper venue has filled its post-only entry, reaches its target (+{triggers.target_bps:g} bps
after the fees of two maker orders) before its stop (−{triggers.stop_bps:g} bps) or {label.horizon_ms / 1000:g} s;
a score at or above {tau:g} may enter.
An entry not filled within {label.fill_within_ms / 1000:g} s is taken back. Outcomes are those of the Desk's own exits on the venue,
with its queue, latency and fees.

## Data

| | from | to | fills |
|---|---|---|---:|
{chr(10).join(f"| {name} | {when(span[0])} | {when(span[1])} | {fills(m, name)} |" for name, span in m["span"].items())}

{m["candidates"]:,} candidates: {", ".join(f"{n:,} {kind}" for kind, n in m["outcomes"].items())}; {m["purged"]:,} left out because their
outcome reaches over a boundary, or within the embargo of {label.embargo_ms / 1000:g} s after it.

## Out of sample

| | model | without it |
|---|---:|---:|
| PR-AUC | {number(m["pr_auc"])} | {number(m["base_rate"])} (base rate) |
| Brier score | {number(m["brier"])} | {number(m["brier_base"])} (saying the base rate) |
| calibration error (ECE) | {number(m["ece"])} | |
| precision at {tau:g} | {number(m["precision_at_tau"])} | {number(m["base_rate"])} |
| recall at {tau:g} | {number(m["recall_at_tau"])} | |
| share of candidates at or above 0.7 | {percent(m["share_at_70"])} | |
| share of candidates filled | {percent(m["fill_share"])} | |
| exported against trained, largest difference | {m["parity_max"]:.1e} on {m["parity_rows"]:,} rows | |

### What a fill earns, after fees, by threshold

{table(m["thresholds"], "tau", "p ≥")}

Net is the mean of a fill in bps of the entry price, ± its standard error (fills overlap in time, so the true error is larger). Markouts:
how far the mid has moved our way after the fill; negative is adverse selection.

### By regime

{table(m["regimes"], "name", "regime")}

### By symbol

{table(m["symbols"], "name", "symbol")}

### Reliability

| said | rows | mean said | seen |
|---|---:|---:|---:|
{chr(10).join(f"| {r['low']:.1f}–{r['high']:.1f} | {r['n']:,} | {r['predicted']:.3f} | {r['observed']:.3f} |" for r in m["reliability"])}

### What it looks at

{", ".join(f"{r['feature']} {percent(r['gain'])}" for r in m["importance"])} of the gain.
"""


def edge(m: dict[str, Any]) -> str:
    """An honest sentence on whether this model makes money, from the numbers alone."""
    at, tau = m["at_tau"], m["tau_entry"]
    if at["fills"] < 30:
        return f"No edge is shown: only {at['fills']} fills of the test part score {tau:g} or more."
    net, error = at["net_bps"], at["net_se"]
    said = f"At p ≥ {tau:g} a fill of the test part earns {net:+.2f} ± {error:.2f} bps after fees ({at['fills']:,} fills)"
    if net - 2 * error > 0:
        return f"{said}: an edge on this data, on the paper venue's fills; a real venue has yet to confirm it."
    if net + 2 * error < 0:
        return f"{said}: it loses money on this data. It ranks candidates, which is not an edge."
    return f"{said}: no edge is shown, the result cannot be told from zero."


def table(rows: list[dict[str, Any]], key: str, title: str) -> str:
    """Rows of `measure` as a table."""
    head = f"| {title} | candidates | filled | precision | won | net bps | markout 100 ms | 500 ms | 1 s |\n|---{'|---:' * 8}|\n"
    return head + "\n".join(
        f"| {r[key] if isinstance(r[key], str) else format(r[key], 'g')} | {r['candidates']:,} "
        f"| {r['fills']:,} ({percent(r['fill_share'])}) "
        f"| {number(r['precision'])} | {number(r['winrate'])} | {signed(r['net_bps'])} ± {number(r['net_se'], 2)} "
        f"| {signed(r['markout_100'])} | {signed(r['markout_500'])} | {signed(r['markout_1000'])} |" for r in rows)


def fills(m: dict[str, Any], part: str) -> str:
    """The fills of a part, where they are counted."""
    return {"train": f"{m['train_fills']:,}", "test": f"{m['test_fills']:,}"}.get(part, "")


def when(ms: int) -> str:
    """Market time as text.

    >>> when(0)
    '1970-01-01 00:00:00'
    """
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def number(value: float, digits: int = 3) -> str:
    """The figure, or a dash where there is none."""
    return f"{value:.{digits}f}" if value == value else "–"


def signed(value: float) -> str:
    """bps with their sign."""
    return f"{value:+.2f}" if value == value else "–"


def percent(value: float) -> str:
    """A share as a percentage.

    >>> percent(0.0123)
    '1.2 %'
    """
    return f"{100 * value:.1f} %" if value == value else "–"
