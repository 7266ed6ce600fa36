"""What every test may use."""
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("sluice", deadline=None)      # a machine with other work on it is no fault of what is tested
settings.load_profile("sluice")

pytest_plugins = ["tests.fixtures_disk", "tests.fixtures_kafka"]


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recorded market data; a test that needs it is skipped where there is none."""
    from store.importers import recordings_folder
    folder = recordings_folder()
    if folder is None:
        pytest.skip("no recordings: SLUICE_RECORDINGS is not set")
    return folder
