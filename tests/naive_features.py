"""Every feature once more, slowly: from the whole history, by its definition, without rings or running sums."""
import math

import numpy as np

from engine.facts import BOOK, Frame
from engine.scoring import kernel
from engine.settings import Windows


def share(a: float, b: float) -> float:
    return (a - b) / (a + b) if a + b > 0 else 0.0


class History:
    """Events since the last restart, as plain lists."""

    def __init__(self, windows: Windows):
        self.lengths = {"fast": windows.fast_ms, "slow": windows.slow_ms, "sigma": windows.sigma_ms, "spike": windows.spike_ms}
        self.fast_ms, self.gap_ms, self.now = windows.fast_ms, windows.gap_ms, None

    def restart(self, ts: int) -> None:
        self.start = ts
        self.books, self.trades, self.flows, self.squares, self.left = [], [], [], [], []
        self.touch = self.sample = None
        self.hit = [0, 0]
        self.means, self.score, self.flow = [(0.0, 0.0)] * 3, 0.0, 0

    def begin(self, name: str) -> int:
        width = max(self.lengths[name] // kernel.BUCKETS, 1)
        return (self.now // width - kernel.BUCKETS + 1) * width

    def span(self, name: str) -> float:
        return max(self.now - max(self.begin(name), self.start), max(self.lengths[name] // kernel.BUCKETS, 1))

    def within(self, name: str, rows: list) -> list:
        return [r[1:] for r in rows if r[0] >= self.begin(name)]

    def before(self, name: str, column: int) -> float:
        older = [b for b in self.books if b[0] < self.begin(name)]
        return (older[-1] if older else self.books[0])[column]

    def take(self, ts: int) -> None:
        ts = ts if self.now is None else max(ts, self.now)
        if self.now is None or ts - self.now > self.gap_ms:
            self.now = ts
            self.restart(ts)
        self.now = ts

    def trade(self, lots: int, way: int) -> None:
        self.trades.append((self.now, lots, way))
        self.hit[0 if way < 0 else 1] += lots

    def book(self, book: np.ndarray) -> None:
        bid, bid_size, ask, ask_size = (int(book[k, 0]) for k in range(4))
        if bid <= 0 or bid_size <= 0 or ask_size <= 0 or ask < bid:
            self.touch = None
            return
        if self.touch:
            b0, q0, a0, r0 = self.touch
            bids = (bid_size if bid >= b0 else 0) - (q0 if bid <= b0 else 0)
            asks = (ask_size if ask <= a0 else 0) - (r0 if ask >= a0 else 0)
            self.flow = bids - asks
            self.flows.append((self.now, self.flow))
            gone = [max(q0 - bid_size, 0) if bid == b0 else q0 if bid < b0 else 0,
                    max(r0 - ask_size, 0) if ask == a0 else r0 if ask > a0 else 0]
            self.left.append((self.now, sum(gone), *(max(g - h, 0) for g, h in zip(gone, self.hit, strict=True))))
        mid, micro = (bid + ask) / 2, (bid_size * ask + ask_size * bid) / (bid_size + ask_size)
        if self.sample is None:
            self.sample = (self.now, mid)
        elif self.now - self.sample[0] >= self.fast_ms:
            self.squares.append((self.now, (1e4 * (mid / self.sample[1] - 1)) ** 2))
            self.sample = (self.now, mid)
        last = self.books[-1][1] if self.books else mid
        self.books.append((self.now, mid, micro, int(book[1].sum()), int(book[3].sum()), bid_size, ask_size))
        weight = max(kernel.FORGET, 1 / len(self.books))
        events = len(self.within("fast", self.books)) + len(self.within("fast", self.trades))
        total = 0.0
        for k, x in enumerate((1e4 * max(ask - bid, 1) / mid, 1e3 * events / self.span("fast"), abs(1e4 * (mid / last - 1)))):
            mean, variance = self.means[k]
            total += min(max((x - mean) / math.sqrt(variance + 1e-4), 0), 8) ** 2
            self.means[k] = mean + weight * (x - mean), (1 - weight) * (variance + weight * (x - mean) ** 2)
        self.score = math.sqrt(total / 3)
        self.touch, self.hit = (bid, bid_size, ask, ask_size), [0, 0]

    def row(self, book: np.ndarray, regime: int, side: int) -> dict[str, float]:
        bid, bid_size, ask, ask_size = self.touch
        mid, micro, depth_b, depth_a = self.books[-1][1:5]
        sigma_books = self.within("sigma", self.books)
        anchor = np.mean([b[0] for b in sigma_books])
        touch = max(np.mean([b[4] + b[5] for b in sigma_books]) / 2, 1)
        depth = np.mean([b[2] + b[3] for b in sigma_books]) / 2

        def bps(price: float) -> float:
            return 1e4 * (price / anchor - 1)

        def total(name: str, rows: list, column: int = 0) -> float:
            return sum(r[column] for r in self.within(name, rows))

        def flow(name: str) -> float:
            return share(*(sum(lots for lots, way in self.within(name, self.trades) if way == w) for w in (1, -1)))

        def moved(name: str) -> float:
            return 1e4 * (mid / self.before(name, 1) - 1)

        second = sum(e * e for (e,) in self.within("sigma", self.flows))
        z = total("fast", self.flows) / math.sqrt(second * self.span("fast") / self.span("sigma")) if second else 0.0
        removed = max(total("fast", self.left), 1)
        cancelled = [total("fast", self.left, k) for k in (1, 2)]
        rest, burst, violence, spiked = self.span("sigma") - self.span("spike"), 0.0, 0.0, 0.0
        if rest >= self.span("spike"):
            now = 1e3 * total("spike", self.trades) / self.span("spike")
            then = 1e3 * (total("sigma", self.trades) - total("spike", self.trades)) / rest
            burst = math.log((1 + now) / (1 + then))
            calm = math.sqrt((total("sigma", self.squares) - total("spike", self.squares)) * self.span("spike") / rest)
            violence = min(abs(moved("spike")) / max(calm, 0.5), 100)
            spiked = float(violence >= 3 and now > 0 and now >= 4 * then)
        imbalance, gap = share(depth_b, depth_a), 1e4 * (micro / mid - 1)
        levels = [(int(b), int(a)) for b, a in zip(book[1], book[3], strict=True)]
        out = {
            "spread": 1e4 * max(ask - bid, 1) / mid, "bid1": bps(bid), "ask1": bps(ask), "mid": bps(mid), "microprice": bps(micro),
            "microprice_velocity": 1e4 * (micro / self.before("fast", 2) - 1) * 1e3 / self.span("fast"),
            "depth_bids": math.log((1 + depth_b) / (1 + depth)), "depth_asks": math.log((1 + depth_a) / (1 + depth)),
            "sigma": math.sqrt(total("sigma", self.squares) * 10_000 / self.span("sigma")),
            "ofi": total("slow", self.flows) / touch, "ofi_instant": self.flow / touch, "ofi_fast": total("fast", self.flows) / touch,
            "ofi_z": z, "cancel_rate": sum(cancelled) / removed, "cancel_imbalance": (cancelled[0] - cancelled[1]) / removed,
            "trade_flow_fast": flow("fast"), "trade_flow_slow": flow("slow"),
            "trade_intensity_fast": 1e3 * len(self.within("fast", self.trades)) / self.span("fast"),
            "trade_intensity_slow": 1e3 * len(self.within("slow", self.trades)) / self.span("slow"),
            "book_intensity": 1e3 * len(self.within("fast", self.books)) / self.span("fast"),
            "volume_burst": burst, "volatility_burst": violence, "news_spike_flag": spiked,
            "time_since_trade": (self.now - self.trades[-1][0] if self.trades else self.gap_ms) / 1e3,
            "last_trade_side": self.trades[-1][2] if self.trades else 0,
            "return_fast": moved("fast"), "return_slow": moved("slow"), "return_sigma": moved("sigma"),
            "touch_bids": math.log((1 + bid_size) / (1 + touch)), "touch_asks": math.log((1 + ask_size) / (1 + touch)),
            "gap_bids": 1e4 * (bid - int(book[0, 1])) / mid if book[1, 1] > 0 else 0.0,
            "gap_asks": 1e4 * (int(book[2, 1]) - ask) / mid if book[3, 1] > 0 else 0.0,
            "microprice_gap": gap, "regime": regime, "side": side, "depth_imbalance": imbalance,
            "aligned_imbalance": side * imbalance, "aligned_microprice": side * gap, "aligned_ofi": side * z,
            "aligned_flow": side * flow("slow"), "aligned_return": side * moved("slow"),
            "qi": share(*(sum(level[s] / k for k, level in enumerate(levels[:5], 1)) for s in (0, 1))),
            "anomaly_score": self.score,
        }
        return out | {f"qi_l{k}": share(*(sum(level[s] for level in levels[:k]) for s in (0, 1))) for k in range(1, 6)}


def rows(frame: Frame, windows: Windows, wanted: list[tuple[int, int, int]]) -> list[dict[str, float]]:
    """The features at each of `wanted`: (event index, side, regime code), in order of events."""
    history, out, due = History(windows), [], list(wanted)
    b = t = 0
    for i, (ts, kind) in enumerate(zip(frame.times.tolist(), frame.kinds.tolist(), strict=True)):
        history.take(ts)
        if kind == BOOK:
            book = frame.book_rows[b]
            history.book(book)
            b += 1
            while due and due[0][0] == i:
                _, side, regime = due.pop(0)
                out.append(history.row(book, regime, side))
        else:
            history.trade(int(frame.trade_rows[t, 1]), int(frame.trade_rows[t, 2]))
            t += 1
    return out
