"""The declared list of features: names, order, units, formulas. Training, serving and documents read it from here.

No absolute price or size reaches a model: prices are basis points around the trailing mid, sizes are shares or logarithms of a
ratio to their own trailing mean, so that one model can serve any symbol at any price. Every value is finite float32.
"""
import hashlib
import json
from typing import NamedTuple

import msgspec

from engine.settings import Regimes, Triggers, Windows

SCHEMA_VERSION = "3"
LEVELS = 5               # of the cumulative imbalances


class Feature(NamedTuple):
    """One column: its name, its unit, and what it is."""
    name: str
    unit: str
    meaning: str


DECLARED = (
    Feature("spread", "bps", "best ask − best bid over mid; a locked book counts as one tick wide (feeds round)"),
    Feature("bid1", "bps", "best bid above the anchor, the mean mid of the sigma window"),
    Feature("ask1", "bps", "best ask above the anchor"),
    Feature("mid", "bps", "mid above the anchor"),
    Feature("microprice", "bps", "touch weighted by the opposite sizes, above the anchor (first term of Stoikov 2018)"),
    Feature("microprice_velocity", "bps/s", "change of the microprice over the fast window"),
    Feature("depth_bids", "ln ratio", "visible bid size over its mean side depth in the sigma window: ln((1 + d)/(1 + mean))"),
    Feature("depth_asks", "ln ratio", "visible ask size likewise"),
    Feature("sigma", "bps", "realised volatility of ten seconds, from mid returns sampled every fast window over the sigma window"),
    Feature("ofi", "touches", "order flow imbalance over the slow window, in mean touch sizes (Cont, Kukanov & Stoikov 2014)"),
    Feature("ofi_instant", "touches", "the last book's contribution to it"),
    Feature("cancel_rate", "share", "of the size that left the touch in the fast window, what no trade explains"),
    Feature("cancel_imbalance", "share", "the same with bids counted + and asks −: positive when bids are taken away"),
    Feature("ofi_fast", "touches", "order flow imbalance over the fast window"),
    Feature("ofi_z", "sd", "the fast sum over its standard deviation if increments were independent: √(Σe² · fast/sigma span)"),
    Feature("trade_flow_fast", "−1…1", "(bought − sold)/(bought + sold) in the fast window; 0 without trades"),
    Feature("trade_flow_slow", "−1…1", "the same in the slow window"),
    Feature("trade_intensity_fast", "1/s", "trades per second in the fast window"),
    Feature("trade_intensity_slow", "1/s", "trades per second in the slow window"),
    Feature("book_intensity", "1/s", "books per second in the fast window"),
    Feature("volume_burst", "ln ratio", "ln((1 + r)/(1 + r₀)): lots per second in the spike window over the rest of the sigma window"),
    Feature("time_since_trade", "s", "since the last trade, at most windows.gap_ms; that where none is known"),
    Feature("last_trade_side", "−1, 0, 1", "aggressor of the last trade; 0 where none is known"),
    Feature("return_fast", "bps", "mid now over mid at the start of the fast window"),
    Feature("return_slow", "bps", "over the slow window"),
    Feature("return_sigma", "bps", "over the sigma window"),
    Feature("volatility_burst", "sd", "|move of the spike window| over the volatility (≥ 0.5 bps) of the rest of the sigma window, ≤ 100"),
    Feature("touch_bids", "ln ratio", "size at the best bid over the mean touch size of the sigma window"),
    Feature("touch_asks", "ln ratio", "size at the best ask likewise"),
    Feature("gap_bids", "bps", "from the best to the second bid; 0 where there is none"),
    Feature("gap_asks", "bps", "from the best to the second ask"),
    Feature("microprice_gap", "bps", "microprice above mid"),
    Feature("regime", "code", "0 normal, 1 event, 2 high_vol (engine/scoring/regime.py)"),
    Feature("side", "−1, 1", "of the candidate: 1 buys, −1 sells"),
    Feature("aligned_imbalance", "−1…1", "side · depth_imbalance"),
    Feature("aligned_microprice", "bps", "side · microprice_gap"),
    Feature("aligned_ofi", "sd", "side · ofi_z"),
    Feature("aligned_flow", "−1…1", "side · trade_flow_slow"),
    Feature("aligned_return", "bps", "side · return_slow"),
    Feature("news_spike_flag", "0, 1", "volume rate ≥ 4 × and move ≥ 3 sd of what the rest of the sigma window knew"),
    Feature("depth_imbalance", "−1…1", "(bids − asks)/(bids + asks) over all visible levels; what the trigger reads"),
    Feature("qi", "−1…1", "queue imbalance of the first five levels, level k weighted by 1/k"),
    *(Feature(f"qi_l{k}", "−1…1", f"queue imbalance of the first {k} level{'s' if k > 1 else ''}") for k in range(1, LEVELS + 1)),
    Feature("anomaly_score", "sd", "√(mean of min(max(z, 0), 8)²), z of spread, event rate, |book return| over moving means (1/256)"),
)
FEATURES: tuple[str, ...] = tuple(f.name for f in DECLARED)
SCHEMA_HASH = hashlib.sha256("|".join(FEATURES).encode()).hexdigest()   # DECISIONS, 31


def config_hash(windows: Windows, triggers: Triggers, regimes: Regimes) -> str:
    """sha256 of the settings that the values depend on, as sorted JSON; the names have `SCHEMA_HASH` (DECISIONS, 31)."""
    parts = {"windows": windows, "triggers": triggers, "regimes": regimes, "version": SCHEMA_VERSION}
    return hashlib.sha256(json.dumps(msgspec.to_builtins(parts), sort_keys=True).encode()).hexdigest()


def table() -> str:
    """`docs/features.md`, generated."""
    rows = "\n".join(f"| {i} | `{f.name}` | {f.unit} | {f.meaning.replace('|', chr(92) + '|')} |" for i, f in enumerate(DECLARED))
    return f"""# Features

Generated from `engine/scoring/features.py` (`python -m engine.scoring.features > docs/features.md`); do not edit.
Schema version {SCHEMA_VERSION}, {len(FEATURES)} columns of float32, sha256 of the names joined by `|`:
`{SCHEMA_HASH}`

Windows (`windows.*` in `config/default.yaml`) are rings of 32 buckets aligned to market time, so a window of W ms holds between
31/32 W and W of the past, never of the future. After `windows.gap_ms` without an event all of them start anew, and
`triggers.warm_events` are counted again before the next candidate; the regime and the cooldowns outlive a gap, nothing outlives
a session. A value of the trailing past that is not there yet is 0; nothing is ever NaN or infinite. A book that is crossed or
lacks a side is no touch: it joins no window.

| # | name | unit | meaning |
|---:|---|---|---|
{rows}
"""


if __name__ == "__main__":
    print(table(), end="")
