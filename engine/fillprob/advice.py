"""What an operator does next: for each row of the go/no-go tables and of the pre-flight, for each code, and for the ceremony as a whole."""
from collections.abc import Sequence
from typing import NamedTuple

from engine.fillprob import threshold as t
from engine.fillprob.ceremony import GO, HOLD, NO_GO, Row
from engine.fillprob.documents import (
    BAD_TYPE,
    MISSING_FIELD,
    OUT_OF_RANGE,
    PARSE_ERROR,
    SCHEMA_UNSUPPORTED,
    SHA256_MISMATCH,
)

NOTHING = "nothing"
ANSWER = "start the instance, or name where its metrics are"
WAIT, WATCH = "wait: hours are the market's", "wait for more orders"
JUDGE = "python -m scripts.eval_fill_model_v0 again"
OFF, BACK = "GRINDER_FILL_MODEL_ENFORCE=0 and start again", "GRINDER_FILL_PROB_AUTO_THRESHOLD=0 and start again"

CODES = {
    MISSING_FIELD: JUDGE, PARSE_ERROR: JUDGE, SHA256_MISMATCH: f"{JUDGE}; ask who edited the report",
    SCHEMA_UNSUPPORTED: f"{JUDGE}, by this version", t.PROVENANCE_MISMATCH: f"{JUDGE}, of the model in GRINDER_FILL_MODEL_DIR",
    t.ENV_INVALID: "mend GRINDER_FILL_PROB_EVAL_MAX_AGE_HOURS", t.TIMESTAMP_FUTURE: f"look at the clocks; {JUDGE}",
    t.TIMESTAMP_TOO_OLD: f"{JUDGE}, on newer orders", BAD_TYPE: JUDGE, OUT_OF_RANGE: JUDGE}

# of a hold, of a no-go
ROWS = {
    "ran": (WAIT, WAIT),
    "recommended_bps stable": ("start the service once more", "one evaluation for all starts; then begin phase 1 again"),
    "delta": ("set GRINDER_FILL_PROB_EVAL_DIR and GRINDER_FILL_MODEL_DIR",
              "do not apply: set GRINDER_FILL_PROB_MIN_BPS nearer by hand, or evaluate with another cost ratio"),
    "block rate": ("watch: evidence says what it blocks; above 30 % it is a no-go",
                   f"a lower threshold or a newer model; until then {OFF}"),
    "block rate climbing": (WATCH, f"the model grows stale: train again; if it goes on, {OFF}"),
    "breaker trips": (ANSWER, f"{OFF}; find out what it blocked (evidence), then begin phase 1 again"),
    "resolution": ("set GRINDER_FILL_PROB_EVAL_DIR and GRINDER_FILL_MODEL_DIR, start again", JUDGE),
    "auto-threshold gauge": ("start again, so that it resolves what is there now",
                             "look for THRESHOLD_RESOLVE_FAILED in the log; start again"),
    "evidence of starts": ("set GRINDER_ARTIFACT_DIR and start again", "set GRINDER_ARTIFACT_DIR and start again"),
    "auto_threshold_bps of both": (ANSWER, "give both the same GRINDER_FILL_PROB_EVAL_DIR and GRINDER_FILL_MODEL_DIR; start both again"),
    "pre-flight": ("run preflight_fill_prob with the canary's environment", "mend the checks that it names, below"),
    "evidence": ("GRINDER_FILL_PROB_EVIDENCE=1 on the canary; wait for a blocked order", "GRINDER_FILL_PROB_EVIDENCE=1 on the canary"),
    "canary enforces": (ANSWER, "GRINDER_FILL_MODEL_ENFORCE=1 on the canary, start it again"),
    "control enforces": (ANSWER, "GRINDER_FILL_MODEL_ENFORCE=0 on the control, start it again"),
    "blocks": ("GRINDER_FILL_MODEL_ENFORCE=0 on the control, begin its phase again", OFF),
    # the pre-flight: of what fails
    "Model loads": ("python -m flows.train_fill_model --out ml; GRINDER_FILL_MODEL_DIR=ml/models/fill_model_v0",) * 2,
    "Eval report loads": (JUDGE,) * 2,
    "Calibration": ("train on more trips, evaluate on later ones; do not enforce",) * 2,
    "Threshold match": ("GRINDER_FILL_PROB_MIN_BPS as recommended, or evaluate again with the cost ratio that you mean",) * 2,
    "Evidence artifacts": ("shadow first: ENFORCE=0, GRINDER_FILL_PROB_EVIDENCE=1, GRINDER_ARTIFACT_DIR set",) * 2,
    "Auto-threshold resolution": (JUDGE,) * 2,
}
OWNERS = ("canary's ", "control's ", "canary ", "control ")


class Step(NamedTuple):
    """Where the ceremony is: the runbook's phase, its name, and what comes next."""
    phase: int
    name: str
    todo: str


def todo(row: Row) -> str:
    """What to do about a row of either table.

    >>> todo(Row("resolution", "sha256_mismatch", "ok", NO_GO))
    'python -m scripts.eval_fill_model_v0 again; ask who edited the report'
    """
    if row.verdict == GO:
        return NOTHING
    if row.value in CODES:
        return CODES[row.value]
    if row.value == "the instance does not answer" or row.value == "does not answer":
        return ANSWER
    if row.verdict == HOLD and row.value.endswith("orders judged"):
        return WATCH
    return _advice(row.name)[row.verdict == NO_GO]


def failing(check: str, passed: bool) -> str:
    """What to do about a check of the pre-flight."""
    return NOTHING if passed else _advice(check)[1]


def _advice(name: str) -> tuple[str, ...]:
    """Of a criterion, whoever's it is."""
    if name in ROWS:
        return ROWS[name]
    bare = next((name.removeprefix(owner) for owner in OWNERS if name.startswith(owner)), name.removesuffix(" of the canary"))
    return ROWS[bare]


def step(model_dir: str, eval_dir: str, auto: bool, failed: Sequence[str], verdict: str) -> Step:
    """Where it is, by what the settings ask for, the checks that fail and what the table comes to.

    >>> step("m", "e", False, [], GO).phase, step("m", "e", True, [], NO_GO).todo
    (2, 'GRINDER_FILL_PROB_AUTO_THRESHOLD=0 and start again')
    """
    if not model_dir:
        return Step(0, "no model", ROWS["Model loads"][0])
    if auto:
        return Step(3, "auto-apply", {GO: "watch blocks, trips and the effective threshold for half an hour",
                                      HOLD: "watch: a row waits for more", NO_GO: BACK}[verdict])
    if failed:
        return Step(0, "pre-flight", f"{failed[0]}: {failing(failed[0], False)}")
    if not eval_dir:
        return Step(1, "not begun", "set GRINDER_FILL_PROB_EVAL_DIR, start again")
    if verdict == HOLD:
        return Step(1, "recommend only", "let it run: the rows that hold say what they wait for")
    return Step(2, "go or no-go", "GRINDER_FILL_PROB_AUTO_THRESHOLD=1 and start again" if verdict == GO else
                "do not apply; the rows that say no say why")
