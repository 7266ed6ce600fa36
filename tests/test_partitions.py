"""Which partition a record lies on: by symbol, the same for every producer, and what must stay whole is whole."""
import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from store import bus
from store.exporter import Exporter
from streams import admin
from streams.topics import CONTROL_EVENTS, MD_FRAMES, SIG_APPROVED, SIG_CANDIDATES, SIG_SCORED, TOPICS, named
from streams.worker import AIOKafkaProducer, Worker, client_options

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "BTCUSD", "BTC", "ETH", "SOL", "XRPUSDT", "1000PEPEUSDT"]


def spread(settings: Settings, partitions: int) -> Settings:
    """The settings of a desk with so many partitions."""
    return msgspec.structs.replace(settings, kafka=msgspec.structs.replace(settings.kafka, partitions=partitions))


@given(st.text(min_size=1), st.integers(1, 1000))
def test_a_key_has_one_partition_and_it_exists(key, partitions):
    assert 0 <= bus.partition_of(key, partitions) < partitions
    assert bus.partition_of(key, partitions) == bus.partition_of(key, partitions)
    assert bus.partition_of(key, 1) == 0


def test_a_thousand_symbols_are_spread_evenly_enough_over_sixty_four_partitions():
    load = [0] * 64
    for n in range(1000):
        load[bus.partition_of(f"SYM{n}USDT", 64)] += 1
    assert min(load) > 0 and max(load) <= 2 * 1000 / 64


@pytest.mark.broker
def test_what_goes_by_symbol_is_spread_and_what_is_the_desks_is_one_partition(on_kafka: Settings):
    settings = spread(on_kafka, 3)
    admin.ensure(settings)
    ends = bus.ends(settings, admin.names(settings))
    partitions = {t: sum(topic == named(t, settings) for topic, _ in ends) for t in TOPICS}
    assert {t for t, n in partitions.items() if n == 3} >= {MD_FRAMES, SIG_CANDIDATES, SIG_SCORED}
    assert partitions[SIG_APPROVED] == partitions[CONTROL_EVENTS] == 1
    assert admin.otherwise(settings, ends) == []
    assert any("3 partitions, kafka.partitions asks for 2" in line for line in admin.otherwise(spread(on_kafka, 2), ends))


@pytest.mark.broker
def test_every_producer_puts_a_symbol_on_the_same_partition(on_kafka: Settings):
    settings = spread(on_kafka, 3)
    admin.ensure(settings)
    topic = named(MD_FRAMES, settings)
    with bus.Publisher(settings) as out:
        by_script = {s: out.send(topic, b"script", s)[0] for s in SYMBOLS}

    async def by_service() -> dict[str, int]:
        worker = Worker("collector", settings, Exporter(SYMBOLS), [])
        worker.producer = AIOKafkaProducer(acks="all", **client_options(settings))
        await worker.producer.start()
        try:
            return {s: (await (await worker.send(MD_FRAMES, s, b"service"))).partition for s in SYMBOLS}
        finally:
            await worker.producer.stop()

    assert asyncio.run(by_service()) == by_script == {s: bus.partition_of(s, 3) for s in SYMBOLS}
    assert len(set(by_script.values())) == 3
    lying = {p: {r.key.decode() for r in bus.read(settings, topic, partition=p) if r.key} for p in range(3)}
    assert lying == {p: {s for s in SYMBOLS if bus.partition_of(s, 3) == p} for p in range(3)}
