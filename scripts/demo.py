"""Runs the whole desk on this machine: broker, market, services, flows, console; Ctrl-C stops it.

    make demo                                       a simulated market at its own pace
    make demo RECORDING=standx SPEED=60             a recorded market at sixty times its speed
    python -m scripts.demo --desk-only --until-fill --duration 120

The first start trains a model if none is active; later ones build nothing. Ports, folders and speeds are settings
(docs/config.md). Logs are under data/logs, one for each part.
"""
import argparse
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import psutil
import yaml
from rich.console import Console

from config.settings import ROOT, Settings, load
from config.where import said
from engine import metrics as m
from scripts import _vitals as vitals
from scripts._arguments import ended, some_seconds
from scripts._children import Crew, Fell, Part, Running, listens
from store import bus, disk
from store.registry import Registry
from streams import admin
from streams.broker import HOST, aot_cache

PY = sys.executable
QUIET_S = 60          # without a fill: say why
STATUS_S = 5
DRAIN_S = 60          # for what is on its way when a recorded market ends


class Stopped(Exception):
    """A person asked for the end."""


def ports_of(s: Settings, desk_only: bool) -> dict[str, int]:
    """Every port that this start needs, by its key."""
    wanted = {} if s.kafka.bootstrap else {"kafka.port": s.kafka.port, "kafka.controller_port": s.kafka.controller_port}
    wanted |= {"exchange.port": s.exchange.port, "ports.metrics": s.ports.metrics, "ports.metrics + 1": s.ports.metrics + 1}
    if not desk_only:
        wanted |= {"ports.prefect": s.ports.prefect, "ports.console": s.ports.console}
        if shutil.which("prometheus"):
            wanted["ports.prometheus"] = s.ports.prometheus
    return wanted


def port_faults(wanted: dict[str, int]) -> list[str]:
    """Ports that are taken, or said twice; each with the key and variable that moves it."""
    faults, seen = [], dict[int, str]()
    for key, port in wanted.items():
        if port in seen:
            faults.append(f"port {port} is both {said(seen[port])} and {said(key)}")
        seen[port] = key
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((HOST, port))
            except OSError as error:
                faults.append(f"port {port} cannot be had ({error.strerror}): set {said(key)}")
    return faults


def answers(url: str) -> Callable[[psutil.Process], bool]:
    """Ready when the address answers 200."""
    def ready(_: psutil.Process) -> bool:
        try:
            with urlopen(url, timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False
    return ready


def play_name(settings: Settings) -> str:
    """The next free instance for a recording: its account lives on after it, so each play has one of its own.

    `RECORDING=standx` → standx1, standx2, …
    """
    name = re.sub(r"[^a-z0-9]+", "", Path(settings.exchange.recording).stem.lower())[:20] or "play"
    data, number = settings.folder("data"), 1
    while list(data.glob(f"*-{name}{number}.db")):
        number += 1
    return f"{name}{number}"


def environment(s: Settings, args: argparse.Namespace) -> dict[str, str]:
    """What the parts are told beside the settings: where Prefect is, that nobody phones home, and whose alerts are heard."""
    home, api = s.folder("data") / "prefect", f"http://{HOST}:{s.ports.prefect}/api"
    heard = {} if args.desk_only or not shutil.which("prometheus") else {
        "SLUICE_PROMETHEUS_URL": os.environ.get("SLUICE_PROMETHEUS_URL") or f"http://{HOST}:{s.ports.prometheus}"}
    return os.environ | heard | {"PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                         "PREFECT_HOME": str(home), "PREFECT_SERVER_UI_API_URL": api,
                         "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
                         "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR") or str(ROOT / ".numba_cache")}


def prometheus_config(s: Settings) -> Path:
    """The generated configuration with this start's targets, written under data/."""
    tree = yaml.safe_load((ROOT / "config" / "prometheus.local.yml").read_text())
    tree["rule_files"] = [str((ROOT / "config" / f).resolve()) for f in tree["rule_files"]]
    tree["scrape_configs"][0]["static_configs"] = [{"targets": [f"{HOST}:{s.ports.metrics}", f"{HOST}:{s.ports.metrics + 1}"]}]
    path = s.folder("data") / "prometheus.yml"
    part = path.with_suffix(".part")
    part.write_text(yaml.safe_dump(tree, sort_keys=False))
    os.replace(part, path)
    return path


class Demo:
    """One start of everything."""

    def __init__(self, settings: Settings, env: dict[str, str], args: argparse.Namespace, console: Console):
        self.s, self.args, self.console = settings, args, console
        self.began = time.monotonic()
        self.crew = Crew(settings.folder("data") / "logs", env, ROOT, self.say)
        self.metrics_url = f"http://{HOST}:{settings.ports.metrics}/metrics"
        self.prefect_url = f"http://{HOST}:{settings.ports.prefect}/api"
        self.with_api = {} if args.desk_only else {"PREFECT_API_URL": self.prefect_url}
        self.first_fill_s: float | None = None
        self.waiting: Running | None = None

    def say(self, text: str) -> None:
        """A line with the seconds since the start."""
        self.console.print(f"[dim]{time.monotonic() - self.began:6.1f} s[/dim]  ", end="")
        self.console.print(text, markup=False, highlight=False)

    def run(self) -> None:
        """Starts all parts, then tells how it goes until the end; raises `Fell` or `Stopped`."""
        trained = Registry(self.s.folder("models")).slot("active") is not None
        prefect = None if self.args.desk_only or trained else self.prefect()   # slow to start, and the training wants it
        self.broker()
        if not trained:
            self.train(prefect)
        exchange = self.desk()
        if not self.args.desk_only:
            self.people(prefect or self.prefect())
        self.say("started: " + self.addresses())
        self.watch(exchange)

    def broker(self) -> None:
        """Kafka and its topics."""
        if not self.s.kafka.bootstrap:
            if not aot_cache().is_file():
                self.crew.finished(self.crew.launch(Part("broker-prepare", [PY, "-m", "streams.broker", "--prepare"], lambda _: True, 600)))
            self.crew.wait(self.crew.launch(Part("broker", [PY, "-m", "streams.broker"], listens(self.s.kafka.port), 90)))
        made = admin.ensure(self.s)
        self.say(f"topics: {len(made)} made" if made else "topics: all there")

    def prefect(self) -> Running:
        """The Prefect server, not waited for."""
        command = [PY, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(self.s.ports.prefect)]
        return self.crew.launch(Part("prefect", command, answers(f"{self.prefect_url}/health"), 180))

    def train(self, prefect: Running | None) -> None:
        """The first model, by the flow that trains all others."""
        if prefect:
            self.crew.wait(prefect)
        self.say("no active model yet: training the first one (flows.train, once)")
        self.crew.finished(self.crew.launch(Part("train", [PY, "-m", "flows.train"], lambda _: True, 900, env=self.with_api)))
        if Registry(self.s.folder("models")).slot("active") is None:
            raise Fell(f"flows.train ended well and left no active model under {self.s.folder('models')}; see data/logs/train.log")

    def desk(self) -> Running:
        """The market and all services; ready when each has caught up."""
        exchange = self.crew.launch(Part("exchange", [PY, "-m", "streams.exchange", "--metrics-port", str(self.s.ports.metrics + 1)],
                                         listens(self.s.exchange.port), 120))
        symbols = ["--symbols", ",".join(self.s.exchange.symbols)] if self.s.exchange.market == "sim" else []
        live = self.crew.launch(Part("desk", [PY, "-m", "scripts.run_live", *symbols, "--metrics-port", str(self.s.ports.metrics)],
                                     lambda _: vitals.look(self.metrics_url).ready(m.STAGES), 120))
        self.crew.wait(exchange, live)
        return exchange

    def people(self, prefect: Running) -> None:
        """What people look at: the console, Prometheus where it is installed; Prefect gets ready meanwhile."""
        ports = self.s.ports
        parts = [Part("console", [PY, "-m", "streamlit", "run", "dashboard/app.py", "--server.address", ports.bind,
                                  "--server.port", str(ports.console), "--server.headless", "true"],
                      answers(f"http://{HOST}:{ports.console}/_stcore/health"), 90, env=self.with_api)]
        if shutil.which("prometheus"):
            command = ["prometheus", f"--config.file={prometheus_config(self.s)}", f"--web.listen-address={HOST}:{ports.prometheus}",
                       f"--storage.tsdb.path={self.s.folder('data') / 'prometheus'}", "--storage.tsdb.retention.size=512MB"]
            parts.append(Part("prometheus", command, answers(f"http://{HOST}:{ports.prometheus}/-/ready"), 60))
        self.crew.wait(*map(self.crew.launch, parts))
        self.waiting = prefect   # takes the longest, and nobody trades by it: the watch goes on meanwhile

    def addresses(self) -> str:
        """Where to look."""
        ports = self.s.ports
        rows: list[tuple[str, object]] = []
        if not self.args.desk_only:
            rows += [("console", ports.console), ("prefect", ports.prefect)]
            rows += [("prometheus", ports.prometheus)] if shutil.which("prometheus") else []
        rows.append(("metrics", f"{ports.metrics}/metrics"))
        return "\n" + "\n".join(f"            {name:<11} http://{HOST}:{port}" for name, port in rows)

    def serve_flows(self) -> None:
        """The deployments, once the Prefect server answers."""
        if self.waiting and self.crew.poll(self.waiting):
            self.crew.launch(Part("schedules", [PY, "-m", "flows.schedules"], lambda _: True, 60, env=self.with_api))
            self.waiting = None

    def watch(self, exchange: Running) -> None:
        """A line every few seconds until the duration, the first fill (where asked), or the end of a recorded market."""
        started = before = vitals.look(self.metrics_url)
        quiet_at, over = time.monotonic() + QUIET_S, False
        while not over:
            time.sleep(0.25)
            over = exchange.process.poll() == 0 and self.s.exchange.market == "recording"
            self.crew.check(but=exchange if over or exchange.process.returncode is None else None)
            if not over:
                self.serve_flows()
            now = vitals.look(self.metrics_url)
            if self.first_fill_s is None and now.sum(m.FILLS_TOTAL):
                self.first_fill_s = time.monotonic() - self.began
                self.say(f"the first fill came {self.first_fill_s:.1f} s after the start")
                if self.args.until_fill:
                    return
            if self.first_fill_s is None and time.monotonic() > quiet_at:
                self.say(f"no fill for {QUIET_S} s. Dropped: {vitals.reasons(now)}. Orders: {now.sum(m.ORDERS_TOTAL):,.0f}")
                quiet_at += QUIET_S
            if now.samples and now.at - before.at >= STATUS_S:
                self.say(f"{vitals.line(before, now)} · {self.crew.memory() / 2**30:.2f} GiB")
                before = now
            if self.args.duration and time.monotonic() - self.began > self.args.duration:
                self.say(f"{self.args.duration:.0f} s are over")
                return
        self.crew.running.remove(exchange)
        last = self.drained()
        self.say("the market is over\n" + "\n".join(f"            {row}" for row in vitals.report(started, last)))

    def drained(self) -> vitals.Look:
        """The metrics when nothing moves any more."""
        before, until, still = vitals.look(self.metrics_url), time.monotonic() + DRAIN_S, 0
        while still < 4 and time.monotonic() < until:
            time.sleep(0.5)
            now = vitals.look(self.metrics_url)
            moved = any(now.sum(x) != before.sum(x) for x in (m.FRAMES_TOTAL, m.SCORES_TOTAL, m.FILLS_TOTAL, m.LEDGER_TRANSACTIONS_TOTAL))
            still = 0 if moved or now.largest(m.CONSUMER_LAG_RECORDS) or now.sum(m.LEDGER_OUTBOX) else still + 1
            before = now
        return before

    def close(self) -> None:
        """Stops all parts and says what it cost."""
        self.crew.memory()
        names = [one.part.name for one in self.crew.running]
        began = time.monotonic()
        killed = self.crew.stop()
        if names:
            forced = f"; {', '.join(killed)} did not end in time and had to be killed" if killed else ""
            self.say(f"stopped {', '.join(reversed(names))} in {time.monotonic() - began:.1f} s{forced}")
        fill = f"{self.first_fill_s:.1f} s to the first fill" if self.first_fill_s is not None else "no fill"
        self.say(f"{fill}, peak memory {self.crew.peak_bytes / 2**30:.2f} GiB, logs in {self.crew.logs}")


def interrupted(number: int, _) -> None:
    """The first signal ends the demo in order; those that follow are waited out."""
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)


def configured(argv_env: dict[str, str]) -> tuple[Settings, dict[str, str]]:
    """Settings and environment of this start: a named recording is played, in an instance of its own."""
    env = dict(argv_env)
    if env.get("RECORDING"):
        env.setdefault("SLUICE_MARKET", "recording")
    settings = load(env=env)
    if settings.exchange.market == "recording" and not settings.instance:
        env["SLUICE_INSTANCE"] = env["SLUICE_FEED"] = play_name(settings)
        settings = load(env=env)
    return settings, env


@disk.told("demo")
def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--desk-only", action="store_true", help="no Prefect server, no console, no Prometheus")
    parser.add_argument("--until-fill", action="store_true", help="stop at the first fill; exit 1 where none came")
    parser.add_argument("--duration", type=some_seconds, default=0, metavar="S", help="stop after so many seconds (default: never)")
    args = parser.parse_args(argv)
    console = Console(soft_wrap=True)
    settings, env = configured(dict(os.environ))
    faults = port_faults(ports_of(settings, args.desk_only))
    if faults:
        print("\n".join(["demo: nothing was started", *(f"  {f}" for f in faults)]), file=sys.stderr)
        return 1
    os.environ.update(env)
    demo, status = Demo(settings, environment(settings, args), args, console), 0
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, interrupted)
    try:
        demo.run()
        status = int(args.until_fill and demo.first_fill_s is None)
    except Stopped as stop:
        demo.say(f"stopping ({stop})")
    except (Fell, bus.BusDown) as fell:
        demo.say(str(fell))
        status = 1
    finally:
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, signal.SIG_IGN)
        demo.close()
    return status


if __name__ == "__main__":
    raise SystemExit(ended(main))
