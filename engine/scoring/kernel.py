"""One pass over a frame: windows, triggers and feature rows, all state in flat arrays.

Numba's disk cache sees a change of the file that a compiled function stands in, not of what it calls in other files: so whatever
this pass needs is in this file. Sums over windows are integers (lots, half ticks, 1e-6 bps²): they do not drift, and adding and
taking away leaves exactly what was there. Time comes from the events; a time that runs backwards counts as the last one.

A window of W ms is a ring of `BUCKETS` buckets of W/BUCKETS ms, aligned to market time: it is full after W, and expires bucket by
bucket, whatever the rate of events.
"""
import math

import numpy as np
from numba import njit

BUCKETS = 32
FAST, SLOW, SIGMA, SPIKE = range(4)
# summed channels of each window
OFI, BOUGHT, SOLD, PRINTS, BOOKS, MIDS, DEPTHS, TOUCHES, REMOVED, CANCELLED, CANCEL_SIGNED, SQUARES = range(12)
CHANNELS = 12
# whole-number state
(NOW, STARTED, SEEN, KNOWN, BID, BID_SIZE, ASK, ASK_SIZE, LAST_TRADE, LAST_SIDE, HIT_BIDS, HIT_ASKS, LAST_BUY, LAST_SELL, SAMPLE_AT,
 SAMPLE_MID, LAST_OFI) = range(17)
INTS = 17
# real-number state: moving means and variances of spread, intensity, |return|; the last score; Σe² of the closed buckets
SCORE, SQUARES_BASE = 6, 7
FLOATS = 8
# after the four bucket widths in `widths`
SAMPLE_MS, COOLDOWN_MS, WARM_EVENTS, GAP_MS, NEAR = 4, 5, 6, 7, 8
NEVER = -(1 << 60)
BY_IMBALANCE, BY_OFI = 1, 2
SPIKE_VOLUME, SPIKE_SIGMAS = 4.0, 3.0
CALM = 0.5               # bps: a rest of the window quieter than this counts as this quiet
FORGET = 1.0 / 256.0
TEN_SECONDS = 10_000.0
BOUND = 1e6


def empty() -> tuple[np.ndarray, ...]:
    """State of a symbol that has seen nothing: ints, floats, sums, rings, bucket numbers, marks, starts, squares."""
    ints = np.zeros(INTS, np.int64)
    ints[[NOW, LAST_BUY, LAST_SELL, LAST_TRADE, SAMPLE_AT]] = NEVER
    return (ints, np.zeros(FLOATS), np.zeros((4, CHANNELS), np.int64), np.zeros((4, BUCKETS, CHANNELS), np.int64), np.zeros(4, np.int64),
            np.zeros((4, BUCKETS, 2)), np.zeros((4, 2)), np.zeros(BUCKETS))


@njit(cache=True, error_model="numpy")
def _restart(ts, widths, ints, floats, sums, rings, bucket, marks, starts, squares):
    """Windows begin at `ts`; what is known of cooldowns stays."""
    ints[STARTED] = ts
    ints[SEEN] = ints[KNOWN] = ints[LAST_SIDE] = ints[HIT_BIDS] = ints[HIT_ASKS] = ints[LAST_OFI] = 0
    ints[LAST_TRADE] = ints[SAMPLE_AT] = NEVER
    floats[:] = 0.0
    sums[:] = 0
    rings[:] = 0
    marks[:] = 0.0
    starts[:] = 0.0
    squares[:] = 0.0
    for w in range(4):
        bucket[w] = ts // widths[w]


@njit(cache=True, error_model="numpy")
def _advance(ts, widths, ints, floats, sums, rings, bucket, marks, starts, squares):
    """Buckets that have left their window are taken out of its sums; the last mid is carried into new ones."""
    for w in range(4):
        old = bucket[w]
        if ts < (old + 1) * widths[w]:
            continue
        new = ts // widths[w]
        mid, micro = marks[w, old % BUCKETS, 0], marks[w, old % BUCKETS, 1]
        first = old + 1
        if new - old > BUCKETS:
            first = new - BUCKETS + 1
            for slot in range(BUCKETS):
                for c in range(CHANNELS):
                    rings[w, slot, c] = 0
                marks[w, slot, 0], marks[w, slot, 1] = mid, micro
                if w == SIGMA:
                    squares[slot] = 0.0
            for c in range(CHANNELS):
                sums[w, c] = 0
        for k in range(first, new + 1):
            slot = k % BUCKETS
            for c in range(CHANNELS):
                sums[w, c] -= rings[w, slot, c]
                rings[w, slot, c] = 0
            starts[w, 0], starts[w, 1] = marks[w, slot, 0], marks[w, slot, 1]
            marks[w, slot, 0], marks[w, slot, 1] = mid, micro
            if w == SIGMA:
                squares[slot] = 0.0
        if w == SIGMA:
            # e² of large books leaves the integers: summed anew instead of taken away, so that it cannot drift
            total = 0.0
            for slot in range(BUCKETS):
                total += squares[slot]
            floats[SQUARES_BASE] = total
        bucket[w] = new


@njit(cache=True, error_model="numpy")
def _add(channel, amount, sums, rings, bucket):
    for w in range(4):
        sums[w, channel] += amount
        rings[w, bucket[w] % BUCKETS, channel] += amount


@njit(cache=True, error_model="numpy")
def _span(w, ts, widths, ints, bucket):
    """Milliseconds of the past that window w holds, at least one bucket."""
    begin = (bucket[w] - BUCKETS + 1) * widths[w]
    if begin < ints[STARTED]:
        begin = ints[STARTED]
    return float(max(ts - begin, widths[w]))


@njit(cache=True, error_model="numpy")
def _share(a, b):
    """(a − b)/(a + b), 0 where there is neither."""
    return (a - b) / (a + b) if a + b > 0 else 0.0


@njit(cache=True, error_model="numpy")
def _ofi_z(ts, widths, ints, floats, sums, bucket, squares):
    """The fast sum over its deviation under independent increments; 0 before anything moved."""
    second = floats[SQUARES_BASE] + squares[bucket[SIGMA] % BUCKETS]
    if second <= 0.0:
        return 0.0
    return sums[FAST, OFI] / math.sqrt(second * _span(FAST, ts, widths, ints, bucket) / _span(SIGMA, ts, widths, ints, bucket))


@njit(cache=True, error_model="numpy")
def _sigma(ts, widths, ints, sums, bucket):
    """Realised volatility in bps of ten seconds."""
    return math.sqrt(sums[SIGMA, SQUARES] * 1e-6 * TEN_SECONDS / _span(SIGMA, ts, widths, ints, bucket))


@njit(cache=True, error_model="numpy")
def _flow(bp, bq, ap, aq, ints):
    """Order flow of one change of the touch, in lots (Cont, Kukanov & Stoikov 2014, eq. 1): bids that come + or go −, asks mirrored."""
    e = 0
    if bp >= ints[BID]:
        e += bq
    if bp <= ints[BID]:
        e -= ints[BID_SIZE]
    if ap <= ints[ASK]:
        e -= aq
    if ap >= ints[ASK]:
        e += ints[ASK_SIZE]
    return e


@njit(cache=True, error_model="numpy")
def _left(price, size, old_price, old_size, way):
    """Lots that left the old best level; `way` is +1 for bids, −1 for asks."""
    if price == old_price:
        return max(old_size - size, 0)
    return old_size if way * (price - old_price) < 0 else 0


@njit(cache=True, error_model="numpy")
def _unusual(x, k, weight, floats):
    """How many deviations x stands above its moving mean, 0 to 8, squared; then x joins mean and variance."""
    mean, variance = floats[2 * k], floats[2 * k + 1]
    z = (x - mean) / math.sqrt(variance + 1e-4)
    floats[2 * k] = mean + weight * (x - mean)
    floats[2 * k + 1] = (1.0 - weight) * (variance + weight * (x - mean) * (x - mean))
    z = min(max(z, 0.0), 8.0)
    return z * z


@njit(cache=True, error_model="numpy")
def _book(ts, bp, bq, ap, aq, depth, ints, floats, widths, sums, rings, bucket, marks, starts, squares):
    """A book with two sides joins the state. `depth` is the visible size of both sides."""
    mid2, micro = bp + ap, (bq * ap + aq * bp) / (bq + aq)
    if ints[KNOWN]:
        e = _flow(bp, bq, ap, aq, ints)
        ints[LAST_OFI] = e
        _add(OFI, e, sums, rings, bucket)
        squares[bucket[SIGMA] % BUCKETS] += float(e) * float(e)
        bids = _left(bp, bq, ints[BID], ints[BID_SIZE], 1)
        asks = _left(ap, aq, ints[ASK], ints[ASK_SIZE], -1)
        if bids + asks > 0:
            taken_bids, taken_asks = max(bids - ints[HIT_BIDS], 0), max(asks - ints[HIT_ASKS], 0)
            _add(REMOVED, bids + asks, sums, rings, bucket)
            _add(CANCELLED, taken_bids + taken_asks, sums, rings, bucket)
            _add(CANCEL_SIGNED, taken_bids - taken_asks, sums, rings, bucket)
    if ints[SAMPLE_AT] == NEVER:
        ints[SAMPLE_AT], ints[SAMPLE_MID] = ts, mid2
        for w in range(4):
            starts[w, 0], starts[w, 1] = mid2, micro
            for slot in range(BUCKETS):
                marks[w, slot, 0], marks[w, slot, 1] = mid2, micro
    elif ts - ints[SAMPLE_AT] >= widths[SAMPLE_MS]:
        r = 1e4 * (mid2 - ints[SAMPLE_MID]) / ints[SAMPLE_MID]
        _add(SQUARES, np.int64(min(r * r, 1e8) * 1e6), sums, rings, bucket)
        ints[SAMPLE_AT], ints[SAMPLE_MID] = ts, mid2
    last = marks[FAST, bucket[FAST] % BUCKETS, 0]
    for w in range(4):
        slot = bucket[w] % BUCKETS
        marks[w, slot, 0], marks[w, slot, 1] = mid2, micro
    _add(BOOKS, 1, sums, rings, bucket)
    _add(MIDS, mid2, sums, rings, bucket)
    _add(DEPTHS, depth, sums, rings, bucket)
    _add(TOUCHES, bq + aq, sums, rings, bucket)
    weight = max(FORGET, 1.0 / (ints[SEEN] + 1.0))
    unusual = _unusual(2e4 * max(ap - bp, 1) / mid2, 0, weight, floats)
    unusual += _unusual(1e3 * (sums[FAST, BOOKS] + sums[FAST, PRINTS]) / _span(FAST, ts, widths, ints, bucket), 1, weight, floats)
    unusual += _unusual(abs(1e4 * (mid2 - last) / last), 2, weight, floats)
    floats[SCORE] = math.sqrt(unusual / 3.0)
    ints[BID], ints[BID_SIZE], ints[ASK], ints[ASK_SIZE] = bp, bq, ap, aq
    ints[KNOWN] = 1
    ints[SEEN] += 1
    ints[HIT_BIDS] = ints[HIT_ASKS] = 0


@njit(cache=True, error_model="numpy")
def _put(values, at, row):
    """Writes values from `at` on, bounded; where the next one goes is returned."""
    for k in range(len(values)):
        row[at + k] = min(max(values[k], -BOUND), BOUND)
    return at + len(values)


@njit(cache=True, error_model="numpy")
def _row(ts, book, regime, imbalance, ofi_z, sigma, depth_b, depth_a, gap_ms, ints, floats, widths, sums, bucket, marks, starts, row, way):
    """The declared features in their declared order (engine/scoring/features.py)."""
    bp, bq, ap, aq = ints[BID], ints[BID_SIZE], ints[ASK], ints[ASK_SIZE]
    mid2 = bp + ap
    fast_ms, slow_ms = _span(FAST, ts, widths, ints, bucket), _span(SLOW, ts, widths, ints, bucket)
    sigma_ms, spike_ms = _span(SIGMA, ts, widths, ints, bucket), _span(SPIKE, ts, widths, ints, bucket)
    books = float(max(sums[SIGMA, BOOKS], 1))
    anchor2 = sums[SIGMA, MIDS] / books if sums[SIGMA, BOOKS] > 0 else float(mid2)
    bps = 1e4 / anchor2
    micro = marks[FAST, bucket[FAST] % BUCKETS, 1]
    touch = max(0.5 * sums[SIGMA, TOUCHES] / books, 1.0)
    side_depth = 0.5 * sums[SIGMA, DEPTHS] / books
    removed = float(max(sums[FAST, REMOVED], 1))
    flow_slow = _share(float(sums[SLOW, BOUGHT]), float(sums[SLOW, SOLD]))
    # the spike window against the rest of the sigma window
    volume, volume_before = 0.0, 0.0
    burst, moved = 0.0, 0.0
    rest_ms = sigma_ms - spike_ms
    if rest_ms >= spike_ms:
        volume = 1e3 * (sums[SPIKE, BOUGHT] + sums[SPIKE, SOLD]) / spike_ms
        volume_before = max(1e3 * (sums[SIGMA, BOUGHT] + sums[SIGMA, SOLD] - sums[SPIKE, BOUGHT] - sums[SPIKE, SOLD]) / rest_ms, 0.0)
        burst = math.log((1.0 + volume) / (1.0 + volume_before))
        calm = math.sqrt(max(sums[SIGMA, SQUARES] - sums[SPIKE, SQUARES], 0) * 1e-6 * spike_ms / rest_ms)
        moved = min(abs(1e4 * (mid2 - starts[SPIKE, 0]) / starts[SPIKE, 0]) / max(calm, CALM), 100.0)
    spiked = 1.0 if moved >= SPIKE_SIGMAS and volume > 0.0 and volume >= SPIKE_VOLUME * volume_before else 0.0
    quiet = float(min(ts - ints[LAST_TRADE], gap_ms)) * 1e-3 if ints[LAST_TRADE] != NEVER else gap_ms * 1e-3
    return_slow = 1e4 * (mid2 - starts[SLOW, 0]) / starts[SLOW, 0]
    micro_gap = 1e4 * (2.0 * micro - mid2) / mid2
    gap_bids = 2e4 * (bp - book[0, 1]) / mid2 if book[1, 1] > 0 else 0.0
    gap_asks = 2e4 * (book[2, 1] - ap) / mid2 if book[3, 1] > 0 else 0.0
    at = _put((
        2e4 * max(ap - bp, 1) / mid2,
        bps * (2 * bp - anchor2), bps * (2 * ap - anchor2), bps * (mid2 - anchor2), bps * (2.0 * micro - anchor2),
        1e4 * (micro - starts[FAST, 1]) / starts[FAST, 1] * 1e3 / fast_ms,
        math.log((1.0 + depth_b) / (1.0 + side_depth)), math.log((1.0 + depth_a) / (1.0 + side_depth)),
        sigma,
        sums[SLOW, OFI] / touch, ints[LAST_OFI] / touch,
        sums[FAST, CANCELLED] / removed, sums[FAST, CANCEL_SIGNED] / removed,
        sums[FAST, OFI] / touch, ofi_z), 0, row)
    at = _put((
        _share(float(sums[FAST, BOUGHT]), float(sums[FAST, SOLD])), flow_slow,
        1e3 * sums[FAST, PRINTS] / fast_ms, 1e3 * sums[SLOW, PRINTS] / slow_ms, 1e3 * sums[FAST, BOOKS] / fast_ms,
        burst, quiet, float(ints[LAST_SIDE]),
        1e4 * (mid2 - starts[FAST, 0]) / starts[FAST, 0], return_slow, 1e4 * (mid2 - starts[SIGMA, 0]) / starts[SIGMA, 0],
        moved,
        math.log((1.0 + bq) / (1.0 + touch)), math.log((1.0 + aq) / (1.0 + touch)), gap_bids, gap_asks, micro_gap), at, row)
    at = _put((
        float(regime), float(way),
        way * imbalance, way * micro_gap, way * ofi_z, way * flow_slow, way * return_slow,
        spiked, imbalance), at, row)
    bids, asks, weighted_b, weighted_a = 0, 0, 0.0, 0.0
    for level in range(5):
        b, a = book[1, level], book[3, level]
        bids += b
        asks += a
        weighted_b += b / (level + 1.0)
        weighted_a += a / (level + 1.0)
        row[at + 1 + level] = _share(float(bids), float(asks))
    row[at] = _share(weighted_b, weighted_a)
    row[at + 6] = floats[SCORE]


@njit(cache=True, error_model="numpy", nogil=True)
def fold(times, kinds, books, trades, regimes, limits, widths, ints, floats, sums, rings, bucket, marks, starts, squares,
         events, when, sides, causes, touches, sigmas, rows, around):
    """Events join the state; candidates are written to the outputs, how many is returned.

    `regimes` uint8[n]: the code in force at each event. `limits` float64: imbalance, ofi_z. `widths` int64: bucket widths of the
    four windows, then fast_ms, cooldown_ms, warm_events, gap_ms, the levels that count as first. Outputs have room for two candidates a
    book: event index, time, side (+1, −1), cause (bits), touch in ticks [m, 2], ten-second sigma in bps, features float32[m, F], and what
    stands around [m, 5]: lots at the best bid, in the first bids, at the best ask, in the first asks, and the trades of the sigma window.
    """
    b, t, m = 0, 0, 0
    gap_ms = widths[GAP_MS]
    for i in range(len(times)):
        ts = max(times[i], ints[NOW])
        if ints[NOW] == NEVER or ts - ints[NOW] > gap_ms:
            _restart(ts, widths, ints, floats, sums, rings, bucket, marks, starts, squares)
        else:
            _advance(ts, widths, ints, floats, sums, rings, bucket, marks, starts, squares)
        ints[NOW] = ts
        if kinds[i] != 0:
            lots, way = np.int64(trades[t, 1]), trades[t, 2]
            t += 1
            _add(PRINTS, 1, sums, rings, bucket)
            if way > 0:
                _add(BOUGHT, lots, sums, rings, bucket)
                ints[HIT_ASKS] += lots
            elif way < 0:
                _add(SOLD, lots, sums, rings, bucket)
                ints[HIT_BIDS] += lots
            ints[LAST_TRADE], ints[LAST_SIDE] = ts, way
            continue
        book = books[b]
        b += 1
        bp, bq, ap, aq = np.int64(book[0, 0]), np.int64(book[1, 0]), np.int64(book[2, 0]), np.int64(book[3, 0])
        if bp <= 0 or bq <= 0 or aq <= 0 or ap < bp:
            ints[KNOWN] = 0       # one-sided or crossed: no touch, and the next change of the touch is no order flow
            continue
        depth_b, depth_a = np.int64(0), np.int64(0)
        for level in range(book.shape[1]):
            depth_b += book[1, level]
            depth_a += book[3, level]
        _book(ts, bp, bq, ap, aq, depth_b + depth_a, ints, floats, widths, sums, rings, bucket, marks, starts, squares)
        if ints[SEEN] < widths[WARM_EVENTS]:
            continue
        may_buy, may_sell = ts - ints[LAST_BUY] >= widths[COOLDOWN_MS], ts - ints[LAST_SELL] >= widths[COOLDOWN_MS]
        if not (may_buy or may_sell):
            continue
        imbalance = _share(float(depth_b), float(depth_a))
        z = _ofi_z(ts, widths, ints, floats, sums, bucket, squares)
        for way in (1, -1):
            cause = 0
            if way * imbalance >= limits[0] and way * imbalance > 0.0:
                cause += BY_IMBALANCE
            if way * z >= limits[1] and way * z > 0.0:
                cause += BY_OFI
            if cause == 0 or not (may_buy if way > 0 else may_sell):
                continue
            ints[LAST_BUY if way > 0 else LAST_SELL] = ts
            events[m], when[m], sides[m], causes[m], touches[m, 0], touches[m, 1] = i, ts, way, cause, bp, ap
            sigmas[m] = _sigma(ts, widths, ints, sums, bucket)
            _row(ts, book, regimes[i], imbalance, z, sigmas[m], float(depth_b), float(depth_a), gap_ms, ints, floats, widths, sums,
                 bucket, marks, starts, rows[m], way)
            around[m, 0], around[m, 1], around[m, 2], around[m, 3], around[m, 4] = bq, 0, aq, 0, sums[SIGMA, PRINTS]
            for level in range(widths[NEAR]):
                around[m, 1] += book[1, level]
                around[m, 3] += book[3, level]
            m += 1
    return m
