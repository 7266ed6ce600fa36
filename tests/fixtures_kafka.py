"""A real broker for the tests that talk to one: one for each test process, topics by name so that tests do not meet."""
import uuid
from collections.abc import Iterator

import msgspec
import pytest

from config.settings import Settings, load
from streams import broker as brokers


def pointed_at(settings: Settings, address: str, **more) -> Settings:
    """The settings with that broker, and other fields of theirs replaced."""
    kafka = msgspec.structs.replace(settings.kafka, bootstrap=address, security_protocol="PLAINTEXT", sasl_mechanism="", ssl_cafile="")
    return msgspec.structs.replace(settings, kafka=kafka, **more)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Broker]:
    """A broker that runs as long as the tests of this process do."""
    with brokers.start(tmp_path_factory.mktemp("kafka"), load(env={}).kafka) as broker:
        yield broker


@pytest.fixture
def on_kafka(kafka: brokers.Broker, tmp_path) -> Settings:
    """Settings that point at the broker, with an instance, a feed and a data folder of this test alone."""
    settings = load(env={})
    paths = msgspec.structs.replace(settings.paths, data=str(tmp_path / "data"), models=str(tmp_path / "models"))
    name = f"t{uuid.uuid4().hex[:8]}"
    return pointed_at(settings, kafka.address, instance=name, feed=name, paths=paths)
