"""YAML and environment in, frozen settings out; anything unknown, mistyped or out of range is named and refused.

`config/default.yaml` holds every key with its environment name beside it (`${NAME:-default}`); `--config FILE` overrides
it, the environment overrides both. Booleans accept true/false/1/0/yes/no/on/off in any case (DECISIONS, 5).
"""
import logging
import os
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path

import msgspec
import yaml
from msgspec import Meta, Struct

from config.sense import repeated, senseless
from engine import settings as e
from engine.fillprob import model_v1
from engine.fillprob.documents import Refused
from engine.fillprob.model_v0 import FILE, MANIFEST
from engine.rewards import arms
from engine.sizing.curve import FORMULA, Curve, unsealed

log = logging.getLogger(__name__)
HERE = Path(__file__).parent
ROOT = HERE.parent
DEFAULT = HERE / "default.yaml"
SYMBOLS = HERE / "symbols.yaml"
MARKET = HERE / "market.yaml"
TRUE, FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
FORGIVING = "${GRINDER_"     # S2's variables: a wrong value is told and passed over, since a gate must never keep a desk from starting
Port = typing.Annotated[int, Meta(ge=0, le=65535)]


class ConfigError(SystemExit):
    """A configuration that cannot be meant: every fault with its file, key, value and what was expected."""

    def __init__(self, faults: list[str]):
        self.faults = faults
        super().__init__("configuration refused:\n" + "\n".join(f"  {f}" for f in faults))


class Kafka(Struct, frozen=True):
    """The broker: one's own (`bootstrap` set) or Apache Kafka on this machine."""
    bootstrap: str
    port: Port
    controller_port: Port
    partitions: e.Many
    replication: e.Many
    min_insync: e.Many
    retention_ms: e.Many
    retention_bytes: e.Many
    segment_bytes: e.Many
    heap: str
    security_protocol: typing.Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    sasl_mechanism: str
    sasl_username: str
    sasl_password: str
    ssl_cafile: str


class Frames(Struct, frozen=True):
    """A frame closes after this many events or this much time of arrival."""
    max_events: typing.Annotated[int, Meta(ge=1, le=4096)]
    max_ms: e.Many


class Exchange(Struct, frozen=True):
    """The local exchange: where it listens, which market it shows, how fast."""
    host: str
    port: Port
    market: typing.Literal["sim", "recording", "frames"]
    recording: str
    speed: str
    seed: int
    symbols: list[str]
    session: str


class Ports(Struct, frozen=True):
    """Where people and Prometheus look."""
    metrics: Port
    prefect: Port
    console: Port
    prometheus: Port
    api: Port
    bind: str


class Scale(Struct, frozen=True):
    """Several workers of one stage: whether they share its partitions, and when one counts as gone."""
    shared: bool
    member: str
    session_ms: e.Many


class Ledger(Struct, frozen=True):
    """Where money state is written, and where its heads are noted."""
    url: str
    snapshot_every: e.Many
    synchronous: typing.Literal["NORMAL", "FULL"]
    anchors: str
    anchor_s: e.Many


class Paths(Struct, frozen=True):
    """Run-time folders, relative to the project."""
    data: str
    models: str
    recordings: str


class Monitoring(Struct, frozen=True):
    """What counts as stale or late: the alerts and the guards read the same fields."""
    stale_ms: e.Many
    max_lag_records: e.Many
    clock_skew_ms: e.Many
    max_unreconciled_ms: e.Many
    max_outbox_records: e.Many
    max_disk_percent: typing.Annotated[float, Meta(gt=0, le=100)]
    runbook_url: str


class Settings(Struct, frozen=True):
    """The whole tree."""
    desk: e.DeskSettings
    policy: e.EntryLimits
    sizing: e.Sizing
    ladder: e.Ladder
    fill_prob: e.FillProb
    gates: e.Gates
    risk: e.Risk
    controls: e.Controls
    warmup: e.WarmUp
    backpressure: e.Backpressure
    fail_safe: e.FailSafe
    markout: e.Markout
    venue: e.Venue
    matching: e.Matching
    triggers: e.Triggers
    windows: e.Windows
    cleaning: e.Cleaning
    regimes: e.Regimes
    labels: e.Labels
    training: e.Training
    schedules: dict[str, str]
    shadow: e.Shadow
    features: e.Flags
    rewards: e.RewardSettings
    bandit: e.BanditSettings
    rollout: e.RolloutSeed
    exchange: Exchange
    frames: Frames
    kafka: Kafka
    scale: Scale
    ledger: Ledger
    paths: Paths
    ports: Ports
    monitoring: Monitoring
    instance: str
    feed: str
    symbols: dict[str, e.Instrument]
    market: dict[str, e.MarketModel]
    curve: Curve | None      # in the file that sizing.fill_curve names
    fill_model: str          # the text of the model.json in the folder that it names instead, else ""

    def instrument(self, symbol: str) -> e.Instrument:
        """The symbol's ticks, lots and fees; `ConfigError` where `config/symbols.yaml` does not have it."""
        try:
            return self.symbols[symbol]
        except KeyError:
            raise ConfigError([f"symbols.{symbol}: not in config/symbols.yaml, which has {', '.join(sorted(self.symbols))}"]) from None

    @property
    def lockstep(self) -> bool:
        """Whether the local exchange is paced by the desk: at any speed but 1, where market time is the clock's."""
        return self.venue.venue in ("sim", "recording") and self.exchange.speed != "1" and self.exchange.market != "frames"

    def folder(self, name: str) -> Path:
        """The absolute path of a run-time folder (`data`, `models`, `recordings`)."""
        path = Path(getattr(self.paths, name)).expanduser()
        return path if path.is_absolute() else ROOT / path


# S1's document writes some sections under other names: they are read as the same keys.
ALIASES: dict[tuple[str, str], tuple[str, ...]] = {
    ("exchange", k): ("venue", k) for k in ("mode", "venue", "maker_only", "reduce_only", "post_only")}
ALIASES |= {("executor", "sizing"): ("sizing",), ("executor", "gates"): ("gates",), ("ai_scorer", "shadow"): ("shadow",)}
ALIASES |= {("executor", "min_fill_probability"): ("ladder", "min_fill_probability")}


def expand(text: str, env: Mapping[str, str]) -> str:
    """`${NAME:-default}` replaced from the environment; an empty variable counts as unset, as in the shell.

    >>> expand("${EXCHANGE_MODE:-paper}", {})
    'paper'
    """
    return VARIABLE.sub(lambda m: env.get(m[1]) or (m[2] or ""), text)


def load(*overrides: Path | str, env: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process: defaults, then each override file, then the environment. `ConfigError` names every fault."""
    env = os.environ if env is None else env
    faults: list[str] = []
    tree: dict = {"symbols": read(SYMBOLS, faults), "market": read(MARKET, faults)}
    sources: dict[str, str] = {}
    for path in (DEFAULT, *map(Path, overrides)):
        merge(tree, aliased(read(path, faults), path, faults), path, sources)
    faults += [f"{sources.get(key, '')}: {key}: unknown key; a fitted curve is a file that sizing.fill_curve names, a model a folder"
               for key in ("curve", "fill_model") if key in tree]
    if faults:
        raise ConfigError(faults)
    built = build(Settings, tree | {"curve": None, "fill_model": ""}, "", env, faults, sources)
    if built and not faults and not is_speed(built.exchange.speed):
        faults.append(f"exchange.speed: {built.exchange.speed!r} is not a number above 0, or max (SPEED)")
    if built and not faults:
        for fault in wrong_arms(built.bandit) + early_expiry(built) + unpriced(built) + senseless(built):
            named = {sources.get(key, "") for key in KEY.findall(fault)} - {"", str(DEFAULT)}
            faults.append(": ".join([*sorted(named)[:1], fault]))
    if built and not faults and built.sizing.fill_curve != FORMULA:
        try:
            folder = ROOT / Path(built.sizing.fill_curve).expanduser()
            built = (msgspec.structs.replace(built, fill_model=fill_model(folder)) if folder.is_dir() else
                     msgspec.structs.replace(built, curve=fill_curve(built)))
        except ValueError as error:
            named = {sources.get("sizing.fill_curve", "")} - {"", str(DEFAULT)}
            faults.append(": ".join([*named, f"sizing.fill_curve: {error}"]))
    if faults:
        raise ConfigError(faults)
    return built


def fill_curve(s: Settings) -> Curve:
    """The curve in the file that the settings name; `ValueError` where it is none, or was fitted to another patience than the desk's."""
    path = Path(s.sizing.fill_curve).expanduser()
    path = path if path.is_absolute() else ROOT / path
    try:
        curve = unsealed(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); {FORMULA} or a file of scripts.fit_fill_curve was expected") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if curve.horizon_ms != s.desk.entry_ttl_ms:
        raise ValueError(f"{path}: fitted to orders that rest for {curve.horizon_ms} ms, desk.entry_ttl_ms is {s.desk.entry_ttl_ms}")
    return curve


def fill_model(folder: Path) -> str:
    """The text of the FillModelV1 in a folder; `ValueError` where it is none, or not what its manifest pins."""
    try:
        manifest, model = ((folder / name).read_bytes() for name in (MANIFEST, FILE))
        model_v1.loaded(manifest, model)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}); a folder of train_fill_model_v1 was expected") from None
    except Refused as no:
        raise ValueError(f"{folder}: {no}") from None
    return model.decode()


def wrong_arms(bandit: e.BanditSettings) -> list[str]:
    """What is wrong with the table of execution arms."""
    try:
        known = arms.table(bandit.arms)
    except ValueError as error:
        return [f"bandit.arms: {error}"]
    return [] if bandit.arm in known else [f"bandit.arm: {bandit.arm!r} is not one of bandit.arms ({', '.join(known)})"]


def unpriced(s: Settings) -> list[str]:
    """A collateral's symbol that the desk's market does not have would never give a price."""
    name = s.sizing.collateral.symbol
    return [] if not name or (name in s.symbols and name in s.exchange.symbols) else [
        f"sizing.collateral.symbol: {name!r} is not one of exchange.symbols ({', '.join(s.exchange.symbols)})"]


KEY = re.compile(r"[a-z_]+\.[a-z_]+")


def early_expiry(s: Settings) -> list[str]:
    """A choice must outwait the longest life of its entry: else a trade that still runs would be learned as one that never filled."""
    life, waits = s.desk.entry_ttl_ms + s.desk.max_holding_ms, s.rewards.pending_expiry_ms
    return [] if waits > life else [
        f"rewards.pending_expiry_ms: {waits} is not above desk.entry_ttl_ms + desk.max_holding_ms ({life}): entries outlive it"]


def is_speed(text: str) -> bool:
    """Whether a market can be played so fast.

    >>> is_speed("60"), is_speed("max"), is_speed("0"), is_speed("fast")
    (True, True, False, False)
    """
    try:
        return text == "max" or 0 < float(text) < float("inf")
    except ValueError:
        return False


LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)     # in C where the library has it: a tenth of a second less at every start


def parsed(path: Path, faults: list[str]):
    """What a YAML file holds; a key that it says twice is a fault."""
    loader = LOADER(path.read_text())
    try:
        node = loader.get_single_node()
        faults += [f"{path}: {fault}" for fault in repeated(node)]
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def read(path: Path, faults: list[str]) -> dict:
    """One YAML file as a mapping; an empty file is an empty mapping."""
    try:
        got = parsed(path, faults)
    except OSError as error:
        faults.append(f"{path}: cannot be read ({error.strerror})")
        return {}
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        faults.append(f"{path}: line {where.line + 1 if where else '?'}: not YAML ({getattr(error, 'problem', error)})")
        return {}
    if got is None:
        return {}
    if not isinstance(got, dict):
        faults.append(f"{path}: a mapping of keys was expected, not {type(got).__name__}")
        return {}
    return got


def aliased(tree: dict, path: Path, faults: list[str]) -> dict:
    """The tree with S1's section names moved to ours; a key said twice with two values is a fault."""
    out = {k: (dict(v) if isinstance(v, dict) else v) for k, v in tree.items()}
    for (section, key), where in ALIASES.items():
        if isinstance(out.get(section), dict) and key in out[section]:
            value, at = out[section].pop(key), out
            for step in where[:-1]:
                at = at.setdefault(step, {})
            if where[-1] in at and at[where[-1]] != value:
                faults.append(f"{path}: {section}.{key}: {value!r} contradicts {'.'.join(where)}: {at[where[-1]]!r}")
            at[where[-1]] = value
            if not out[section]:
                del out[section]
    return out


def merge(into: dict, more: dict, path: Path, sources: dict[str, str], at: str = "") -> None:
    """`more` over `into`, section by section; remembers which file said each key."""
    for key, value in more.items():
        name = f"{at}.{key}" if at else str(key)
        sources[name] = str(path)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value, path, sources, name)
        else:
            into[key] = value


def build(kind, value, at: str, env: Mapping[str, str], faults: list[str], sources: dict[str, str]):
    """`value` as `kind`, or a fault and None."""
    def fault(why: str):
        where = sources.get(at, "")
        faults.append(f"{where + ': ' if where else ''}{at}: {why}")

    if isinstance(value, str) and (named := VARIABLE.search(value)) and env.get(named[1]):
        sources[at] = named[1]
    meta: list[Meta] = []
    if typing.get_origin(kind) is typing.Annotated:
        kind, *extra = typing.get_args(kind)
        meta = [m for m in extra if isinstance(m, Meta)]
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        options = [a for a in typing.get_args(kind) if a is not type(None)]
        if value is None or (isinstance(value, str) and expand(value, env).strip().lower() in ("", "null", "none")):
            return None
        return build(options[0], value, at, env, faults, sources)
    if isinstance(kind, type) and issubclass(kind, Struct):
        if not isinstance(value, dict):
            return fault(f"a section was expected, not {value!r}")
        hints = typing.get_type_hints(kind, include_extras=True)
        for key in value.keys() - hints.keys():
            near = nearest(str(key), hints)
            faults.append(f"{sources.get(f'{at}.{key}' if at else str(key), at)}: {at + '.' if at else ''}{key}: unknown key"
                          + (f"; did you mean {near}?" if near else f"; known are {', '.join(sorted(hints))}"))
        got = {}
        for key, hint in hints.items():
            name = f"{at}.{key}" if at else key
            if key not in value:
                faults.append(f"{name}: missing")
            else:
                got[key] = build(hint, value[key], name, env, faults, sources)
        return kind(**got) if len(got) == len(hints) else None
    if origin is dict:
        if not isinstance(value, dict):
            return fault(f"a mapping was expected, not {value!r}")
        return {str(k): build(typing.get_args(kind)[1], v, f"{at}.{k}", env, faults, sources) for k, v in value.items()}
    written = None
    if isinstance(value, str):
        written = value if value.startswith(FORGIVING) else None
        value = expand(value, env)
    if origin is list:
        if isinstance(value, str):
            value = [v.strip() for v in value.split(",") if v.strip()]
        if not isinstance(value, list):
            return fault(f"a list was expected, not {value!r}")
        return [build(typing.get_args(kind)[0], v, f"{at}[{i}]", env, faults, sources) for i, v in enumerate(value)]
    if origin is typing.Literal:
        allowed = typing.get_args(kind)
        return value if value in allowed else fault(f"{value!r} is not one of {', '.join(map(str, allowed))}")
    got = scalar(kind, value)
    if written is not None and (got is None or any(beyond(got, m) for m in meta)):
        return forgiven(written, kind, value, meta)
    if got is None:
        return fault(f"{value!r} is not {WORDS[kind]}")
    for m in meta:
        wrong = beyond(got, m)
        if wrong:
            return fault(f"{got} {wrong}")
    return got


def forgiven(written: str, kind: type, value: str, meta: list[Meta]):
    """What one of S2's variables comes to that cannot be meant: a number out of range is its nearest bound, anything else the default."""
    default = scalar(kind, expand(written, {}))
    got = scalar(kind, value)
    if got is None:
        got, said = default, WORDS[kind]
    else:
        said = "; ".join(filter(None, (beyond(got, m) for m in meta)))
        for m in meta:
            got = max(got, m.ge) if m.ge is not None else got
            got = min(got, m.le) if m.le is not None else got
    found = VARIABLE.match(written)
    log.warning("%s: %r is not %s; %s is taken", found[1] if found else written, value, said.removeprefix("is not "), got)
    return got


WORDS = {bool: "true or false (true/false, 1/0, yes/no, on/off)", int: "a whole number", float: "a finite number", str: "text"}


def scalar(kind: type, value):
    """The value as that type, None where it is not one. A bool is no number, and a number no bool but 1 and 0."""
    if kind is str:
        return value if isinstance(value, str) else None if isinstance(value, (dict, list)) or value is None else str(value)
    if kind is bool:
        word = str(value).strip().lower()
        return True if word in TRUE else False if word in FALSE else None
    if isinstance(value, bool) or value is None:
        return None
    try:
        got = kind(value if not isinstance(value, str) or kind is float else value.strip())
    except (TypeError, ValueError):
        return None
    if kind is int and isinstance(value, float) and value != got:
        return None
    return got if got - got == 0 else None


def beyond(value: float, m: Meta) -> str:
    """Why the value is outside its range, or nothing."""
    if m.ge is not None and m.le is not None and not m.ge <= value <= m.le:
        return f"is not between {m.ge} and {m.le}"
    for limit, ok, words in ((m.ge, lambda v, x: v >= x, "at least"), (m.gt, lambda v, x: v > x, "above"),
                             (m.le, lambda v, x: v <= x, "at most"), (m.lt, lambda v, x: v < x, "below")):
        if limit is not None and not ok(value, limit):
            return f"is not {words} {limit}"
    return ""


def nearest(word: str, known) -> str | None:
    """The known key that a misspelt one was meant to be."""
    import difflib
    got = difflib.get_close_matches(word, list(known), 1, 0.7)
    return got[0] if got else None


def fingerprint(part: Struct) -> str:
    """sha256 of a settings struct, for evidence of what a decision was made under."""
    import hashlib
    return hashlib.sha256(msgspec.json.encode(part, order="deterministic")).hexdigest()
