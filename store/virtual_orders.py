"""The dataset `virtual_orders_v1`: resting maker orders that nobody sent, over recorded books, with the paper venue's answer.

Half of them stand where the desk's candidates arose, on their side; half at random books, on a random side. Distance, horizon and quantity
are drawn by a seed, so that the same archive and settings give the same rows. A row is an order: what it was, what became of it, and its
features, by the function that serves them (`engine/fillprob/order_features.py`).
"""
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from config.settings import Settings
from engine.execution.ladder import passive
from engine.facts import Frame, join
from engine.fillprob import virtual
from engine.fillprob.documents import Refused, parsed, pretty, sha256
from engine.fillprob.order_features import NAMES, order_rows
from engine.rewards.arms import arm
from engine.scoring.features import FEATURES
from engine.scoring.labels import Stream, stream_of
from engine.scoring.signals import Columns, SignalEngine
from engine.settings import Instrument
from store import archive
from store.artifacts import MANIFEST, ArtifactError, columns_of, publish, read

SCHEMA = "virtual_orders_v1"
SIGMA, TOUCHES = FEATURES.index("sigma"), (FEATURES.index("touch_bids"), FEATURES.index("touch_asks"))
DATA = "data.parquet"
COLUMNS = ("symbol", "ts_ms", "side", "price_ticks", "lots", "horizon_ms", "candidate", "bid", "ask", "touch_own", "first_ms", "whole_ms")
FEATURE_COLUMNS = tuple(f"feature.{name}" for name in NAMES)
KINDS = {"symbol": pa.string(), "candidate": pa.bool_(), "touch_own": pa.float32(), "ts_ms": pa.int64(), "side": pa.int8()}
TABLE = pa.schema([*((name, KINDS.get(name, pa.int32())) for name in COLUMNS), *((name, pa.float32()) for name in FEATURE_COLUMNS)])
HORIZONS_MS = (1_000, 60_000)       # the shortest and the longest that is drawn
DESK_SHARE = 0.5                    # with one of the desk's own patiences
AT_TOUCH, INSIDE = 0.45, 0.15       # near the touch as ladders stand, inside the spread; the rest further behind
FAR_SIGMAS = 1.0                    # mean distance of those, in moves to be expected within the horizon
NOTIONAL_USD = (20.0, 5_000.0)
RANDOM_EVERY_MS = 250


class Orders(NamedTuple):
    """Virtual orders as columns of length m; `y` whether the first lot was filled within the horizon, `rows` float32[m, features];
    `touch_own` ln of the own touch over the mean touch, which S1's formula asks for and the model does not."""
    symbol: np.ndarray
    ts_ms: np.ndarray
    side: np.ndarray
    price_ticks: np.ndarray
    lots: np.ndarray
    horizon_ms: np.ndarray
    candidate: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    touch_own: np.ndarray
    first_ms: np.ndarray
    whole_ms: np.ndarray
    rows: np.ndarray

    @property
    def y(self) -> np.ndarray:
        """bool[m]: at least a lot was filled."""
        return self.first_ms >= 0

    def where(self, chosen: np.ndarray) -> "Orders":
        """Only those."""
        return Orders(*(column[chosen] for column in self))


class Made(NamedTuple):
    """The rows of a symbol, and how many more were refused on arrival or not seen to their end."""
    table: pa.Table
    refused: int
    unseen: int


def moments(frame: Frame, instrument: Instrument, settings: Settings) -> tuple[Columns, Columns]:
    """The desk's candidates, and a candidate at (nearly) every `RANDOM_EVERY_MS`: the same engine, triggered by any imbalance."""
    near = settings.gates.liquidity_by_side.levels
    anything = msgspec.structs.replace(settings.triggers, imbalance=0.0, ofi_z=1e9, cooldown_ms=RANDOM_EVERY_MS)
    return tuple(SignalEngine(frame.symbol, instrument, settings.windows, triggers, settings.regimes, near).columns(frame)   # type: ignore
                 for triggers in (settings.triggers, anything))


def drawn(rng: np.random.Generator, found: Columns, sign: np.ndarray, stream: Stream, settings: Settings) -> tuple[np.ndarray, ...]:
    """Price in ticks, touch [m, 2] and horizon in ms, drawn for orders at these moments."""
    m = len(sign)
    book = stream.books[stream.book_at[found.event]]
    touch = np.stack([book[:, 0, 0], book[:, 2, 0]], 1).astype(np.int64)
    patiences = np.array(sorted({arm(text).patience(settings.desk.entry_ttl_ms) for text in settings.bandit.arms}))
    low, high = np.log(HORIZONS_MS)
    horizon = np.where(rng.random(m) < DESK_SHARE, rng.choice(patiences, m), np.exp(rng.uniform(low, high, m)).astype(np.int64))
    own, spread = np.where(sign > 0, touch[:, 0], touch[:, 1]), touch[:, 1] - touch[:, 0]
    sigma = found.features[:, SIGMA].astype(np.float64)
    reach = 1e-4 * touch.mean(1) * np.sqrt(sigma**2 + 0.01) * np.sqrt(horizon / 10_000)       # ticks to be expected
    how, further = rng.random(m), rng.exponential(FAR_SIGMAS, m)
    steps = settings.ladder.step_ticks * rng.integers(0, len(settings.ladder.fractions), m) + rng.integers(0, 3, m)
    behind = np.where(how < AT_TOUCH, steps, np.where(how < AT_TOUCH + INSIDE, -rng.integers(1, np.maximum(spread, 2)),
                                                      np.ceil(reach * further).astype(np.int64)))
    wanted = zip(sign.tolist(), (own - sign * behind).tolist(), *touch.T.tolist())
    price = np.array([passive(s, p, b, a) for s, p, b, a in wanted], np.int64)
    return price, touch, horizon


def made(frames: Sequence[Frame], settings: Settings, many: int, seed: int) -> Made:
    """About `many` virtual orders over the frames of one symbol."""
    symbol = frames[0].symbol
    instrument = settings.instrument(symbol)
    stream = stream_of(list(frames))
    whole = join(list(frames))
    rng = np.random.default_rng([seed, *symbol.encode()])
    tables, refused, unseen = [], 0, 0
    gap_ms = settings.windows.gap_ms
    silent = stream.ts[:-1][np.diff(stream.ts) > gap_ms]
    for candidate, found in zip((True, False), moments(whole, instrument, settings)):
        pick = np.sort(rng.choice(len(found.event), min(many // 2, len(found.event)), replace=False))
        found = Columns(*(column[pick] for column in found))
        sign = found.side.astype(np.int64) if candidate else rng.choice(np.array([-1, 1]), len(pick))
        price, touch, horizon = drawn(rng, found, sign, stream, settings)
        low, high = np.log(NOTIONAL_USD)
        usd = np.exp(rng.uniform(low, high, len(pick)))
        lots = np.maximum(1, np.rint(usd / (price * instrument.tick * instrument.lot))).astype(np.int64)
        got = virtual.fates(stream, found.event, sign, price, lots, horizon, settings.matching)
        gone = np.searchsorted(silent, found.ts_ms) < np.searchsorted(silent, found.ts_ms + horizon + 2 * settings.matching.latency_ms)
        keep = (got.kind == virtual.RESTED) & ~gone & (price > 0)
        refused, unseen = refused + int((got.kind == virtual.REFUSED).sum()), unseen + int((got.kind == virtual.UNSEEN).sum() + gone.sum())
        rows = order_rows(found.features, sign, price, touch, found.around, horizon)
        columns = [np.full(len(pick), symbol, object), found.ts_ms, sign, price, lots, horizon, np.full(len(pick), candidate), *touch.T,
                   found.features[np.arange(len(pick)), np.where(sign > 0, *TOUCHES)], got.first_ms, got.whole_ms, *rows.T]
        tables.append(pa.table([pa.array(c[keep], kind) for c, kind in zip(columns, TABLE.types)], schema=TABLE))
    return Made(pa.concat_tables(tables), refused, unseen)


def packed(table: pa.Table) -> bytes:
    """`data.parquet`: the same bytes for the same rows and the same pyarrow."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", write_statistics=False, store_schema=False)
    return sink.getvalue().to_pybytes()


def of_archive(root: Path, symbols: Sequence[str], settings: Settings, many: int, seed: int, start_ms: int | None,
               end_ms: int | None) -> list[tuple[str, Made]]:
    """Virtual orders over an archive's symbols; none for a symbol that has no events in that time."""
    out = []
    for symbol in symbols:
        frames = list(archive.read(root, symbol, events=1 << 20, start_ms=start_ms, end_ms=end_ms))
        if frames:
            out.append((symbol, made(frames, settings, many, seed)))
    return out


def write(table: pa.Table, out_dir: Path, dataset_id: str, created_at_utc: str, seed: int, said: dict[str, object],
          force: bool = False) -> Path:
    """`data.parquet` and `manifest.json` under out_dir/dataset_id; `said` is what the manifest says of how they were drawn."""
    if not dataset_id or Path(dataset_id).name != dataset_id:
        raise ArtifactError(f"--dataset-id: {dataset_id!r} is no folder's name")
    blob = packed(table)
    manifest = {"schema_version": SCHEMA, "dataset_id": dataset_id, "created_at_utc": created_at_utc, "source": "virtual", "seed": seed,
                "row_count": len(table), "columns": [*COLUMNS, *FEATURE_COLUMNS], "made": said, "sha256": {DATA: sha256(blob)}}
    return publish(out_dir / dataset_id, {DATA: blob, MANIFEST: pretty(manifest)}, force)


def is_one(folder: Path) -> bool:
    """Whether a folder says that it is such a dataset; it may still be wrong in everything else."""
    try:
        return parsed(read(folder / MANIFEST), MANIFEST).get("schema_version") == SCHEMA
    except Refused:
        return False


def load(folder: Path) -> tuple[Orders, str]:
    """The orders of a dataset and the hash of its manifest; `ArtifactError` where it is not what its manifest says."""
    blob, manifest, digest = columns_of(folder, DATA, SCHEMA, [*COLUMNS, *FEATURE_COLUMNS], "build_virtual_orders")
    try:
        table = pq.read_table(pa.BufferReader(blob)).cast(TABLE)
    except (pa.ArrowException, ValueError) as error:
        raise ArtifactError(f"{folder / DATA}: not the rows of {SCHEMA} ({error})") from None
    if len(table) != manifest.get("row_count"):
        raise ArtifactError(f"{folder}: {len(table)} rows, its manifest says {manifest.get('row_count')!r}")
    return of_table(table), digest


def of_table(table: pa.Table) -> Orders:
    """A table's rows as arrays."""
    rows = np.stack([table[name].to_numpy() for name in FEATURE_COLUMNS], 1)
    return Orders(**{name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS}, rows=rows)


def joined(some: Sequence[Orders]) -> Orders:
    """The orders of several datasets."""
    return Orders(**{name: np.concatenate([getattr(orders, name) for orders in some]) for name in Orders._fields})
