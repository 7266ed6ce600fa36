"""The training as Prefect runs it: every step a task of one flow run, and the card among its artifacts."""
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    """Prefect's own test server; while it starts it may drop the first connection, which its harness does not wait out."""
    from prefect.testing.utilities import prefect_test_harness
    with ExitStack() as stack:
        for attempt in range(3):
            try:
                stack.enter_context(prefect_test_harness(server_startup_timeout=180))
                break
            except httpx.RemoteProtocolError:
                if attempt == 2:
                    raise
        yield


@pytest.mark.xdist_group("prefect")
def test_a_flow_run_trains_and_leaves_the_card(tmp_path: Path, prefect_server):
    from prefect.artifacts import Artifact

    from flows.train import train_model
    (tmp_path / "small.yaml").write_text(
        "training: {simulated_hours: 2, min_rows: 300, trees: 10, leaves: 7, min_leaf_rows: 50}\nlabels: {embargo_ms: 5000}\n"
        f"paths: {{data: {tmp_path / 'data'}, models: {tmp_path / 'models'}, recordings: ''}}\n")
    first = train_model(symbols=["BTCUSDT", "SOLUSDT"], overrides=[str(tmp_path / "small.yaml")])
    again = train_model(symbols=["BTCUSDT", "SOLUSDT"], overrides=[str(tmp_path / "small.yaml")])
    card = Artifact.get("model-card")
    assert first["new"]
    assert first["promoted"] == f"promoted {first['model_id']} -> active"
    assert again == {"model_id": first["model_id"], "new": False, "promoted": ""}
    assert first["model_id"] in card.data
    assert (tmp_path / "models" / "latest" / "model_card.md").read_text() == card.data


@pytest.mark.xdist_group("prefect")
def test_flow_runs_train_a_fill_model_and_keep_the_go_no_go_table(tmp_path: Path, monkeypatch, prefect_server):
    from prefect.artifacts import Artifact

    from flows.resolve_fill_threshold import resolve_fill_threshold
    from flows.train_fill_model import train_fill_model
    fills = [{"ts": 1000 + 700 * k, "symbol": "BTCUSDT", "side": "BUY" if k % 2 == 0 else "SELL", "price": str(100 + k % 5),
              "quantity": "0.5", "order_id": f"o{k}"} for k in range(60)]
    (tmp_path / "fills.json").write_text(json.dumps(fills))
    trained = train_fill_model(str(tmp_path / "fills.json"), str(tmp_path / "ml"))
    for name, value in (("FILL_MODEL_DIR", trained["model"]), ("FILL_PROB_EVAL_DIR", trained["eval"]), ("ARTIFACT_DIR", tmp_path / "a")):
        monkeypatch.setenv(f"GRINDER_{name}", str(value))
    told = resolve_fill_threshold("http://127.0.0.1:9/metrics")
    rows = {row["name"]: row for row in json.loads(Artifact.get("fill-threshold-go-no-go").data)}
    assert told["verdict"] in ("hold", "no_go") and told["recommended_bps"] == trained["recommended_threshold_bps"]
    assert rows["resolution"]["verdict"] == "go" and rows["resolution"]["value"] == f"recommended_bps={told['recommended_bps']}"
    assert rows["ran"]["verdict"] == "hold" and rows["ran"]["value"] == "the instance does not answer"
    assert told["verdict"] in Artifact.get("fill-threshold-verdict").data
    assert len(json.loads(Artifact.get("fill-model-thresholds").data)) == 21 and Path(told["artifact"]).is_file()


def test_every_deployment_has_a_schedule_or_says_by_hand(capsys):
    from flows.schedules import DEPLOYMENTS, main
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(DEPLOYMENTS)


def test_a_schedule_for_no_flow_is_refused(tmp_path: Path):
    from config.settings import ConfigError
    from flows.schedules import main
    (tmp_path / "wrong.yaml").write_text("schedules: {train_modle: '* * * * *'}\n")
    with pytest.raises(ConfigError, match=r"schedules\.train_modle: no such flow"):
        main(["--list", "--config", str(tmp_path / "wrong.yaml")])
