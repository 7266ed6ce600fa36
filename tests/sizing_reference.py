"""S0's sizing in thirty lines, written from its text alone and not from the engine: what the switches on and off must come to."""
from math import floor, inf, isfinite

LOT = 0.0001


def between(value, low, high):
    return max(low, min(high, value))


def reference(x: dict, flow_aware: bool, scaled: bool) -> dict:
    """Limiting cap, note, multiplier, factors and size (whole lots) for one set of numbers, in the units that they came in."""
    capacity = max(x["lp"] * min(1, x["trades"] / max(x["flow_trades"], 1)), min(x["flow_min"], x["lp"])) if flow_aware else x["lp"]
    day = x["equity"] * x["day_pct"] if x["day_pct"] > 0 else x["day_max"] if x["day_max"] > 0 else inf
    rows = [("arm_cap", x["arm"] * x["base"]), ("wallet_free", x["free"]), ("per_name_max", x["name_max"] if x["name_max"] > 0 else inf),
            ("per_name_fraction", x["equity"] * x["name_part"]), ("lp_impact", x["lp_part"] * x["lp"]),
            ("flow", x["flow_part"] * capacity), ("daily_cap", max(day - x["spent"], 0)),
            ("usd_cap", x["mint_usd"] / x["sol"] if x["mint_usd"] > 0 and x["sol"] is not None else inf)]
    cap, size = rows[0]
    for name, value in rows[1:]:
        if value < size:
            cap, size = name, value
    note = ("no_available_size" if size <= 0 else "ok") if cap == "arm_cap" else cap
    if note == "ok" and x["mint_usd"] > 0 and x["sol"] is None:
        note = "usd_cap_suspended"
    rug, fill, slip = (v if v is not None and isfinite(v) else None for v in (x["rug"], x["fill"], x["slip"]))
    scales = {"rugProb": 1 if rug is None else between(1 - 0.8 * between(rug, 0, 1), 0.2, 1),
              "pFill": 1 if fill is None else between(between(fill, 0, 1) / 0.9, 0.25, 1), "expSlipBps": 1}
    if slip is not None and slip > 0 and between(slip, 1, 5000) > 150:
        scales["expSlipBps"] = between(150 / between(slip, 1, 5000), 0.2, 1)
    product = between(scales["rugProb"] * scales["pFill"] * scales["expSlipBps"], 0.01, 1)
    if not scaled or floor(size / LOT + 1e-12) == 0:      # nothing to scale: no lot, with or without risk
        return {"cap": cap, "note": note, "multiplier": 1, "factors": set(), "lots": floor(size / LOT + 1e-12)}
    if product < 0.999:
        size, note = size * product, "risk_scaled" if note in ("ok", "usd_cap_suspended") else note
        note = "risk_scaled_zero" if floor(size / LOT + 1e-12) == 0 else note
    factors = {name for name, scale in scales.items() if scale < 0.999}
    return {"cap": cap, "note": note, "multiplier": product, "factors": factors, "lots": floor(size / LOT + 1e-12)}
