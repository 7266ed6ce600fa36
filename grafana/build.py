"""The dashboards as files, and what Grafana needs to find them: a provider and a data source."""
import json
from pathlib import Path

from grafanalib._gen import DashboardEncoder

from config.settings import Settings
from grafana.dashboards import DASHBOARDS
from grafana.panels import current

GENERATED = Path(__file__).parent / "generated"


def rendered(name: str, settings: Settings) -> dict:
    """One dashboard as plain data."""
    return current(json.loads(json.dumps(DASHBOARDS[name](settings).to_json_data(), cls=DashboardEncoder)))


def files(settings: Settings) -> dict[Path, str]:
    """Every generated dashboard and its text."""
    return {GENERATED / name: json.dumps(rendered(name, settings), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
            for name in DASHBOARDS}
