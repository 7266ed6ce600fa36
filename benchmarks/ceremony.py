"""The fill-probability runbook, typed from top to bottom against running instances on a local market; writes what was seen as a transcript.

    python -m benchmarks ceremony                               everything; a day of market takes minutes
    python -m benchmarks ceremony --phases enforce,breaker      some of it; --list says which there are
    python -m benchmarks ceremony --hours 1 --judged 5          shorter

A broker of its own is started unless KAFKA_BOOTSTRAP_SERVERS names one. The scorer's model is the active one of paths.models. The first
phase shows what becomes of the desk's own fills of some hours; the others use a model of constructed trips, whose win rates are known, so
that every step comes to what the runbook shows. Exit status 1 where anything was not as the runbook says.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks._typed import Live, Typed, Wrong, environment
from config.settings import ROOT, load
from scripts._arguments import ended, port, positive, some_seconds
from streams import broker as brokers

SYMBOLS = "BTCUSDT,ETHUSDT,SOLUSDT"
GATE = "grinder_router_fill_prob_"
NOTIONALS = ("50", "300", "800", "2500", "8000")
# the share of wins of what the gate asks for, out of 200, by side and notional; the rest win 130
WINS = {("SELL", "300"): 49, ("BUY", "800"): 59}
RATE = "router_fill_prob_(auto_threshold|blocks|cb_trips|enforce)"


def known_fills(path: Path, wins: dict[tuple[str, str], int] | None = None, others: int = 130) -> Path:
    """Fills of 400 round trips for each side and notional, evenly mixed, so that each half has the wanted shares of wins."""
    wins, fills, ts = WINS if wins is None else wins, [], 1_767_654_887_000
    for k in range(400):
        for side in ("BUY", "SELL"):
            for notional in NOTIONALS:
                w = wins.get((side, notional), others)
                won = (k + 1) * w // 200 > k * w // 200
                better = 1 if won == (side == "BUY") else -1
                for at, way, price in ((ts, side, 100), (ts + 500, "SELL" if side == "BUY" else "BUY", 100 + better)):
                    fills.append({"ts": at, "symbol": "BTCUSDT", "side": way, "price": str(price), "fee": "0",
                                  "quantity": str(float(notional) / 100), "order_id": f"o{at}"})
                ts += 60_000
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fills))
    return path


class Ceremony:
    """The phases, in the runbook's order; each leaves no service behind but what the next one names."""

    def __init__(self, t: Typed, hours: float, judged: int, ports: tuple[int, int]):
        self.t, self.hours, self.judged, self.ports = t, hours, judged, ports
        ml = t.home / "ml"
        self.ml, self.model, self.eval, self.evidence = ml, ml / "models/fill_model_v0", ml / "eval/fill_model_v0", ml / "evidence"

    # what the phases share

    def grinder(self) -> Live:
        """`docker restart grinder`, without Docker: the one that runs is stopped, and started with what is exported now."""
        if one := self.t.live.get("grinder"):
            self.t.down(one)
        return self.t.up("grinder", SYMBOLS, self.ports[0])

    def curl(self, pattern: str, at: int = 0) -> str:
        """The runbook's look at the metrics; comments of the format left out."""
        return self.t.type(f"curl -s http://localhost:{self.ports[at]}/metrics | grep -v '^#' | grep -E '{pattern}'")

    def orders(self, one: Live, n: int, within_s: float = 900) -> None:
        """Waits until the gate has judged so many more."""
        due = one.shows(GATE + "checks_total") + n
        self.t.until(one, f"{n} orders are judged", lambda: one.shows(GATE + "checks_total") >= due, within_s)

    def entries(self, one: Live) -> None:
        """Waits until the desk has sent another entry."""
        series = 'orders_total{cause="entry"}'
        before = one.shows(series)
        self.t.until(one, "it sends an entry", lambda: one.shows(series) > before, 900)

    def market(self, one: Live, hours: float, within_s: float = 3600) -> None:
        """Waits until the phase has seen so much market."""
        series = GATE + 'phase{what="market_seconds"}'
        self.t.until(one, f"{hours:g} h of market", lambda: one.shows(series) >= hours * 3600, within_s)

    def preflight(self, *more: str, model: Path | None = None, evaluation: Path | None = None, status: tuple[int, ...] = (0,)) -> str:
        """The runbook's command."""
        of = f"--model {model or self.model} --eval {evaluation or self.eval} --evidence-dir {self.evidence}/fill_prob"
        return self.t.type(" ".join(["python3 -m scripts.preflight_fill_prob", of, *more]), status=status)

    def trained(self, name: str, fills: Path, cost_ratio: float = 1 / 3) -> None:
        """Dataset, model and evaluation of constructed fills, by the three scripts."""
        model, judged = self.ml / "models" / name, self.ml / "eval" / name
        dataset = f"python3 -m scripts.build_fill_dataset_v1 --fixture {fills} --out-dir {self.ml}/datasets --force"
        self.t.type(f"{dataset} --dataset-id {name} --first 0.5")
        self.t.type(f"{dataset} --dataset-id {name}_later --last 0.5")
        self.t.type(f"python3 -m scripts.train_fill_model_v0 --dataset {self.ml}/datasets/{name} --out-dir {model} --force")
        self.evaluated(name, judged, cost_ratio)

    def evaluated(self, name: str, judged: Path, cost_ratio: float) -> None:
        """The evaluation alone, with another worth of an avoided loss."""
        self.t.type(f"python3 -m scripts.eval_fill_model_v0 --dataset {self.ml}/datasets/{name}_later --model {self.ml}/models/{name} "
                    f"--out-dir {judged} --cost-ratio {cost_ratio:.4f} --force")

    def prepared(self) -> None:
        """Model and evaluation, where an earlier phase has not made them."""
        if not self.eval.exists():
            self.trained("fill_model_v0", known_fills(self.ml / "fills.json"))

    def settled(self, name: str = "grinder") -> None:
        """Ends an instance that still runs."""
        if one := self.t.live.get(name):
            self.t.down(one)

    def calm(self) -> None:
        """Nothing exported, nothing running."""
        for name in list(self.t.live):
            self.settled(name)
        self.t.exported.clear()

    # the phases

    def own(self) -> None:
        """A model from the desk's own fills"""
        one = self.grinder()
        self.t.until(one, "own fills", lambda: one.shows("fills_total") >= 10 * self.judged, 1800)
        self.settled()
        own = self.ml / "own"
        self.t.type(f"SLUICE_INSTANCE=grinder python3 -m flows.train_fill_model --out {own} --force")
        made = own / "models/fill_model_v0", own / "eval/fill_model_v0"
        said = self.preflight("--threshold-bps 2500", model=made[0], evaluation=made[1], status=(0, 1))
        self.t.check("the desk's own fills make a model that loads and an evaluation of it",
                     "[PASS] Model loads" in said and "[PASS] Eval report loads" in said)

    def shadow(self) -> None:
        """Prerequisites: a model, its evaluation, evidence of a gate in shadow"""
        self.trained("fill_model_v0", known_fills(self.ml / "fills.json"))
        self.t.export(GRINDER_FILL_MODEL_DIR=self.model, GRINDER_FILL_PROB_EVIDENCE=1, GRINDER_ARTIFACT_DIR=self.evidence)
        one = self.grinder()
        self.t.write("\n".join(one.told("FILL_MODEL_LOADED")))
        self.orders(one, 4 * self.judged)
        self.curl("fill_prob_(checks|low|blocks|enforce_enabled)")
        self.t.check("what is watched is not blocked", one.shows(GATE + "blocks_total") == 0)
        self.t.check("nothing was asked of an evaluation", not one.told("THRESHOLD_RESOLVED"))
        self.settled()
        self.t.type(f"ls {self.evidence}/fill_prob/*.json | head -5")
        self.t.type(f"python3 -m scripts.fill_prob_summary --evidence-dir {self.evidence}/fill_prob")

    def enforce(self) -> None:
        """Steps 1 to 5: pre-flight, review, enforce, monitor, rollback"""
        self.prepared()
        self.preflight("--threshold-bps 2500")
        self.t.type(f"cat {self.eval}/eval_report.json | python3 -m json.tool | head -20")
        self.t.export(GRINDER_FILL_MODEL_DIR=self.model, GRINDER_ARTIFACT_DIR=self.evidence, GRINDER_FILL_MODEL_ENFORCE=1,
                      GRINDER_FILL_PROB_MIN_BPS=2500)
        one = self.grinder()
        self.orders(one, 4 * self.judged)
        for what in ("fill_prob_blocks", "fill_prob_cb_trips", "fill_prob_enforce"):
            self.curl(what)
        self.t.check("enforcement is on", one.shows(GATE + "enforce_enabled") == 1)
        self.t.check("blocked is what is below the threshold", one.shows(GATE + "blocks_total") == one.shows(GATE + "low_total"))
        self.t.check("the breaker has not tripped", one.shows(GATE + "cb_trips_total") == 0)
        self.t.export(GRINDER_FILL_MODEL_ENFORCE=0)
        one = self.grinder()
        self.curl("fill_prob_enforce")
        self.t.check("grinder_router_fill_prob_enforce_enabled 0", one.shows(GATE + "enforce_enabled") == 0)

    def breaker(self) -> None:
        """The circuit breaker, under a model that expects every order to lose"""
        self.trained("bad", known_fills(self.ml / "bad.json", {}, others=20))
        self.t.export(GRINDER_FILL_MODEL_DIR=self.ml / "models/bad", GRINDER_FILL_MODEL_ENFORCE=1, GRINDER_FILL_PROB_MIN_BPS=2500)
        one = self.grinder()
        trips = GATE + "cb_trips_total"
        passed = GATE + "cb_bypassed_total"
        self.t.until(one, "the breaker trips and an order passes", lambda: one.shows(trips) and one.shows(passed), 1800)
        self.t.write("\n".join(one.told("FILL_PROB_CIRCUIT_BREAKER_TRIPPED")[:2]))
        self.curl("fill_prob_(blocks|cb_)")
        self.t.check("orders go on while it is tripped", one.shows('orders_total{cause="entry"}') > 0)
        self.t.export(GRINDER_FILL_MODEL_ENFORCE=0)
        one = self.grinder()
        self.t.check("the rollback ends it: enforce_enabled 0", one.shows(GATE + "enforce_enabled") == 0)

    def auto(self) -> None:
        """The auto-threshold ceremony, phases 0 to 3, and its three ways back"""
        self.prepared()
        self.evaluated("fill_model_v0", self.eval, 0.5)
        self.t.type(f"ls {self.model}/manifest.json {self.model}/model.json")
        self.t.type(f"ls {self.eval}/eval_report.json {self.eval}/manifest.json")
        self.preflight("--auto-threshold")
        self.t.export(GRINDER_FILL_MODEL_ENFORCE=1, GRINDER_FILL_PROB_MIN_BPS=2500, GRINDER_ARTIFACT_DIR=self.evidence,
                      GRINDER_FILL_PROB_EVAL_DIR=self.eval, GRINDER_FILL_MODEL_DIR=self.model, GRINDER_FILL_PROB_AUTO_THRESHOLD=0)
        one = self.grinder()
        only = "mode=recommend_only recommended_bps=3000 configured_bps=2500 effective_bps=2500 reason=recommend_only"
        self.resolved(one, only, 3000, 2500)
        self.market(one, self.hours / 2)
        one = self.grinder()
        self.market(one, self.hours)
        self.curl(RATE)
        said = self.t.type(f"python3 -m flows.resolve_fill_threshold --metrics http://localhost:{self.ports[0]}/metrics", status=(0, 3, 4))
        self.t.check("the table's rows and its verdict", "verdict: " in said and "recommended_bps stable" in said)
        self.t.check("it ran for a day of market", ("go     ran" in said) == (self.hours >= 24))
        self.t.export(GRINDER_FILL_PROB_AUTO_THRESHOLD=1)
        one = self.grinder()
        self.resolved(one, "mode=auto_apply recommended_bps=3000 configured_bps=2500 effective_bps=3000 reason=auto_applied", 3000, 3000)
        self.curl(RATE)
        self.t.check("a file of each start's resolution",
                     len(list((self.evidence / "fill_prob").glob("threshold_resolution_*.json"))) >= 3)
        self.t.write("\nQuick rollback:")
        self.t.export(GRINDER_FILL_PROB_AUTO_THRESHOLD=0)
        self.resolved(self.grinder(), only, 3000, 2500)
        self.t.write("\nFull rollback:")
        self.t.export(GRINDER_FILL_PROB_EVAL_DIR=None, GRINDER_FILL_PROB_AUTO_THRESHOLD=0)
        one = self.grinder()
        self.t.check("no THRESHOLD_RESOLVED line", not one.told("THRESHOLD_RESOLVED"))
        self.t.check("gauge 0", one.shows(GATE + "auto_threshold_bps") == 0)
        self.t.write("\nEmergency:")
        self.t.export(GRINDER_FILL_MODEL_ENFORCE=0)
        self.t.check("the gate is off", self.grinder().shows(GATE + "enforce_enabled") == 0)

    def resolved(self, one: Live, line: str, gauge: int, effective: int) -> None:
        """What a start says of the threshold, and shows."""
        self.t.write("\n".join(one.told("THRESHOLD_RESOL")))
        self.t.check(f"THRESHOLD_RESOLVED {line}", any(line in said for said in one.told("THRESHOLD_RESOLVED ")))
        self.t.check(f"gauge {gauge}, in force {effective}",
                     (one.shows(GATE + "auto_threshold_bps"), one.shows(GATE + "effective_threshold_bps")) == (gauge, effective))

    def instance(self, name: str, symbols: str, enforce: int, at: int) -> Live:
        """Canary or control as the runbook starts them."""
        return self.t.up(name, symbols, self.ports[at], GRINDER_FILL_MODEL_ENFORCE=str(enforce),
                         GRINDER_ARTIFACT_DIR=f"{self.ml}/artifacts/{name}", GRINDER_FILL_MODEL_DIR=str(self.model),
                         GRINDER_FILL_PROB_EVAL_DIR=str(self.eval), GRINDER_FILL_PROB_MIN_BPS="2500", GRINDER_FILL_PROB_EVIDENCE="1")

    def canary(self) -> None:
        """Canary beside control, promotion, and the canary's three ways back"""
        self.prepared()
        shared = "".join(f"{line}\n" for line in (f"GRINDER_FILL_MODEL_DIR={self.model}", f"GRINDER_FILL_PROB_EVAL_DIR={self.eval}",
                                                 "GRINDER_FILL_PROB_MIN_BPS=2500", "GRINDER_FILL_PROB_EVIDENCE=1"))
        for name, symbols, enforce in (("canary", "BTCUSDT", 1), ("control", "ETHUSDT,SOLUSDT", 0)):
            own = f"SLUICE_INSTANCE={name}\nSLUICE_FEED={name}\nSLUICE_SYMBOLS={symbols}\nGRINDER_FILL_MODEL_ENFORCE={enforce}\n"
            (self.t.home / f"{name}.env").write_text(f"{shared}{own}GRINDER_ARTIFACT_DIR={self.ml}/artifacts/{name}\n")
        self.t.type(f"python3 -m scripts.validate_topology {self.t.home}/canary.env {self.t.home}/control.env --symbols {SYMBOLS}")
        canary, control = self.instance("canary", "BTCUSDT", 1, 0), self.instance("control", "ETHUSDT,SOLUSDT", 0, 1)
        for one in (canary, control):
            self.t.check(f"{one.name}: FILL_PROB_THRESHOLD_RESOLUTION_OK", one.told("FILL_PROB_THRESHOLD_RESOLUTION_OK"))
            self.orders(one, self.judged)
        self.t.write("\nBoth once more, since a recommendation is stable when two starts agree:")
        self.t.down(canary)
        self.t.down(control)
        canary, control = self.instance("canary", "BTCUSDT", 1, 0), self.instance("control", "ETHUSDT,SOLUSDT", 0, 1)
        for one in (canary, control):
            self.market(one, self.hours)
            self.orders(one, 1)
        for at, one in enumerate((canary, control)):
            self.t.write(f"=== {one.name} ===")
            self.curl("fill_prob_(blocks|cb_trips|enforce|auto_threshold_bps)", at)
        self.t.check("the canary enforces, the control does not",
                     (canary.shows(GATE + "enforce_enabled"), control.shows(GATE + "enforce_enabled")) == (1, 0))
        self.t.check("the control blocks nothing", control.shows(GATE + "blocks_total") == 0)
        self.t.check("one recommendation", canary.shows(GATE + "auto_threshold_bps") == control.shows(GATE + "auto_threshold_bps") > 0)
        said = self.t.type(f"set -a; . {self.t.home}/canary.env; "
                           f"python3 -m flows.resolve_fill_threshold --metrics http://localhost:{self.ports[0]}/metrics "
                           f"--control http://localhost:{self.ports[1]}/metrics --control-artifacts {self.ml}/artifacts/control",
                           status=(0, 3, 4))
        self.t.check("the canary's own rows and a verdict", "verdict: " in said)
        self.t.write("\nPromote ETHUSDT:")
        self.t.down(canary)
        self.t.down(control)
        canary, control = self.instance("canary", "BTCUSDT,ETHUSDT", 1, 0), self.instance("control", "SOLUSDT", 0, 1)
        self.orders(canary, self.judged)
        events = 'market_events_total{symbol="%s"}'
        self.t.check("the canary has ETHUSDT now", canary.shows(events % "ETHUSDT") > 0)
        self.t.check("the control has not, and goes on", control.shows(events % "ETHUSDT") == 0 < control.shows(events % "SOLUSDT"))
        self.t.write("\nQuick rollback of the canary:")
        self.t.down(canary)
        canary = self.instance("canary", "BTCUSDT,ETHUSDT", 0, 0)
        self.t.check("grinder_router_fill_prob_enforce_enabled 0", canary.shows(GATE + "enforce_enabled") == 0)
        self.t.write("\nEmergency: stop the canary entirely:")
        self.t.down(canary)
        before = control.shows("market_events_total")
        self.t.until(control, "it goes on", lambda: control.shows("market_events_total") > before, 60)
        self.t.check("the control goes on unaffected", True)
        replacement = self.instance("replacement", "BTCUSDT,ETHUSDT", 0, 0)
        self.t.check("its symbols are taken by an instance without enforcement", replacement.shows(GATE + "enforce_enabled") == 0)
        self.t.write("\nFull rollback: one instance with all symbols:")
        self.t.down(replacement)
        self.t.down(control)
        one = self.grinder()
        self.t.check("one desk, enforcement off", one.shows(GATE + "enforce_enabled") == 0 < one.shows("market_events_total"))

    def tampering(self) -> None:
        """Files that were touched: what a service says that starts with them"""
        self.prepared()
        report, manifest, weights = self.eval / "eval_report.json", self.eval / "manifest.json", self.model / "model.json"
        damages = (("one byte of the report", report, lambda b: b.replace(b"3", b"4", 1), "sha256_mismatch"),
                   ("the evaluation's manifest cut in two", manifest, lambda b: b[:len(b) // 2], "parse_error"),
                   ("the evaluation's report gone", report, None, "missing_field"),
                   ("one byte of the model", weights, lambda b: b.replace(b"0", b"1", 1), ""))
        for what, path, damage, code in damages:
            whole = path.read_bytes()
            if damage:
                path.write_bytes(damage(whole))
            else:
                path.unlink()
            self.t.write(f"\n{what}:")
            self.t.export(GRINDER_FILL_MODEL_ENFORCE=1, GRINDER_FILL_MODEL_DIR=self.model, GRINDER_FILL_PROB_EVAL_DIR=self.eval,
                          GRINDER_FILL_PROB_AUTO_THRESHOLD=1, GRINDER_FILL_PROB_MIN_BPS=2500)
            try:
                one = self.grinder()
                self.t.write("\n".join(one.told("THRESHOLD_RESOL|FILL_MODEL_LOAD_FAILED")))
                wanted = f"reason_code={code}" if code else "FILL_MODEL_LOAD_FAILED"
                self.t.check(f"the log says {wanted}", one.told(wanted))
                self.entries(one)
                self.t.check("trading goes on, under 2500 bps" if code else "trading goes on",
                             not code or one.shows(GATE + "effective_threshold_bps") == 2500)
                self.settled()
            finally:
                path.write_bytes(whole)


PHASES = ("own", "shadow", "enforce", "breaker", "auto", "canary", "tampering")


def walk(c: Ceremony, phases: list[str]) -> None:
    """The named phases in the runbook's order."""
    for name in (p for p in PHASES if p in phases):
        phase = getattr(c, name)
        c.t.heading(phase.__doc__.split("\n")[0])
        phase()
        c.calm()


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.ceremony", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phases", default=",".join(PHASES), help=f"some of {', '.join(PHASES)} (default all)")
    parser.add_argument("--list", action="store_true", help="what the phases are")
    parser.add_argument("--home", type=Path, help="where everything is made and the transcript stays (default: a new folder under /tmp)")
    parser.add_argument("--hours", type=some_seconds, default=24, help="market time of recommend-only (default 24, S2's least)")
    parser.add_argument("--judged", type=positive, default=20, help="orders that the gate judges before a step is looked at (default 20)")
    parser.add_argument("--ports", type=port, nargs=2, default=[9090, 9091], metavar="PORT", help="metrics (default 9090 9091)")
    parser.add_argument("--keep", action="store_true", help="leave --home's data folder (ledgers, logs of the broker) as well")
    args = parser.parse_args(argv)
    phases = args.phases.split(",")
    if unknown := set(phases) - set(PHASES):
        parser.error(f"--phases: {', '.join(sorted(unknown))} is none of {', '.join(PHASES)}")
    if args.list:
        print("\n".join(f"{name:<10} {getattr(Ceremony, name).__doc__.splitlines()[0]}" for name in PHASES))
        return 0
    home = args.home.resolve() if args.home else Path(tempfile.mkdtemp(prefix="sluice-ceremony-"))
    env = environment() | {"SLUICE_DATA": str(home / "data"), "SPEED": os.environ.get("SPEED", "max")}
    with ExitStack() as stack:
        if not env.get("KAFKA_BOOTSTRAP_SERVERS"):
            env["KAFKA_BOOTSTRAP_SERVERS"] = stack.enter_context(brokers.start(home / "broker", load(env={}).kafka)).address
        t = Typed(home, env, lambda text: print(text, flush=True))
        stack.callback(t.close)
        try:
            walk(Ceremony(t, args.hours, args.judged, tuple(args.ports)), phases)
        except Wrong as error:
            t.write(f"    [WRONG] {error}")
            t.wrong.append(str(error))
    if not args.keep:
        shutil.rmtree(home / "data", ignore_errors=True)
        shutil.rmtree(home / "broker", ignore_errors=True)
    print(f"\n{len(t.wrong)} not as the runbook says; transcript: {home / 'transcript.md'} (commands run in {ROOT})", file=sys.stderr)
    return 1 if t.wrong else 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
