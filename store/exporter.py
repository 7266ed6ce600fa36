"""The declared series as Prometheus reads them: every closed label set at 0 from the start, nothing that is not declared.

`increase()` misses a counter that is born at 1, and `absent()` cannot tell a quiet service from a dead one: so every
label set that a series can have is there before anything happened.
"""
import itertools
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest, start_http_server

from config.settings import ConfigError
from engine.metrics import ALL, ANY, ARM, SYMBOL, Series

disable_created_metrics()  # `…_created` would double the series and is read by nobody
KINDS: dict[str, type] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
Bound = dict[str, dict[tuple, Callable[[float], None]]]  # series → label set in the caller's order → the child's method
VERBS = {"counter": ("inc",), "gauge": ("inc", "set"), "histogram": ("observe",)}


class Served:
    """A running endpoint: `port` is where it listens, calling it stops it."""

    def __init__(self, server, thread):
        self.port: int = server.server_port
        self._server, self._thread = server, thread

    def __call__(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Exporter:
    """An `engine.metrics.Meter` over prometheus_client with a registry of its own.

    `symbols` and `arms` fill the labels of symbols and of execution arms. `series` are those that this process moves; all declared
    ones unless told.
    An unknown label, value or series is a `LookupError`, a verb that the kind does not have a `TypeError`.
    """

    def __init__(self, symbols: Sequence[str], series: Iterable[Series] = ALL, arms: Sequence[str] = ()):
        self.registry = CollectorRegistry()
        self.symbols, self.arms = tuple(symbols), tuple(arms)
        self._families: dict[str, Counter | Gauge | Histogram] = {}
        self._inc: Bound = {}
        self._set: Bound = {}
        self._observe: Bound = {}
        for one in series:
            more = {"buckets": one.buckets} if one.kind == "histogram" else {}
            self._families[one.name] = KINDS[one.kind](one.name, one.help, tuple(one.labels), registry=self.registry, **more)
            for values in itertools.product(*(self._values(v) for v in one.labels.values())):
                self._bind(one, dict(zip(one.labels, values)))

    def inc(self, series: Series, by: float = 1, **labels: str) -> None:
        """Adds to a counter or a gauge."""
        try:
            add = self._inc[series.name][tuple(labels.items())]
        except KeyError:
            add = self._found(series, labels, self._inc, "inc")
        add(by)

    def set(self, series: Series, value: float, **labels: str) -> None:
        """Gives a gauge its value."""
        try:
            put = self._set[series.name][tuple(labels.items())]
        except KeyError:
            put = self._found(series, labels, self._set, "set")
        put(value)

    def observe(self, series: Series, value: float, **labels: str) -> None:
        """Puts a value into a histogram's buckets."""
        try:
            book = self._observe[series.name][tuple(labels.items())]
        except KeyError:
            book = self._found(series, labels, self._observe, "observe")
        book(value)

    def forget(self, series: Series, **labels: str) -> None:
        """Takes one label set of a series with an open label away: the model that left its slot. Unknown ones are ignored."""
        self._check(series, labels)
        values = tuple(labels[name] for name in series.labels)
        if ANY not in series.labels.values():
            raise LookupError(f"{series.name} has closed labels; they stay at their last value")
        for bound in (self._inc, self._set, self._observe):
            for order in itertools.permutations(labels.items()):
                bound.get(series.name, {}).pop(order, None)
        try:
            self._families[series.name].remove(*values)
        except KeyError:
            pass

    def text(self) -> str:
        """Everything in Prometheus' text format, as the endpoint answers it."""
        return generate_latest(self.registry).decode()

    def serve(self, port: int, addr: str = "127.0.0.1") -> Served:
        """Answers `/metrics` on a thread of its own until the returned handle is called; port 0 takes a free one."""
        try:
            return Served(*start_http_server(port, addr, registry=self.registry))
        except OSError as error:
            raise ConfigError([f"ports.metrics: {addr}:{port} cannot be listened on ({error.strerror}); a free port was expected "
                               "(SLUICE_METRICS_PORT)"]) from error

    def _values(self, declared: tuple[str, ...]) -> tuple[str, ...]:
        return self.symbols if declared is SYMBOL else self.arms if declared is ARM else () if declared is ANY else declared

    def _check(self, series: Series, labels: dict[str, str]) -> None:
        if series.name not in self._families:
            raise LookupError(f"{series.name} is not exported here")
        if labels.keys() != series.labels.keys():
            raise LookupError(f"{series.name} wants the labels {', '.join(series.labels) or 'none'}, not {', '.join(labels) or 'none'}")
        for key, value in labels.items():
            allowed = series.labels[key]
            if not isinstance(value, str) or (allowed is not ANY and value not in self._values(allowed)):
                raise LookupError(f"{series.name}: {key} is never {value!r}" + (
                    "; text was expected" if allowed is ANY else f"; it is one of {', '.join(self._values(allowed))}"))

    def _bind(self, series: Series, labels: dict[str, str]) -> None:
        family = self._families[series.name]
        child = family.labels(**labels) if series.labels else family
        for verb in VERBS[series.kind]:
            bound = {"inc": self._inc, "set": self._set, "observe": self._observe}[verb]
            bound.setdefault(series.name, {})[tuple(labels.items())] = getattr(child, verb)

    def _found(self, series: Series, labels: dict[str, str], bound: Bound, verb: str) -> Callable[[float], None]:
        """The first use of an open label or of another order of the labels; afterwards it is one dict lookup."""
        self._check(series, labels)
        if verb not in VERBS[series.kind]:
            raise TypeError(f"{series.name} is a {series.kind}: it knows {', '.join(VERBS[series.kind])}, not {verb}")
        self._bind(series, labels)
        return bound[series.name][tuple(labels.items())]
