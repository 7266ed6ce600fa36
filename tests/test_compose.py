"""The production shape: it starts what exists, publishes nothing to the world, and carries no secret."""
import importlib.util
import re
from graphlib import TopologicalSorter

import pytest
import yaml

from alerts.build import CONTAINERS, DESKS
from config.settings import DEFAULT, ROOT, VARIABLE, load
from config.topology import faults, of_compose
from scripts import run_live

TEXT = (ROOT / "docker-compose.yml").read_text()
TREE = yaml.safe_load(TEXT)
SERVICES = TREE["services"]
OURS = {n: s for n, s in SERVICES.items() if "build" in s}
NAMES = {m[1] for m in VARIABLE.finditer(DEFAULT.read_text())}
FOREIGN = re.compile(r"^(PREFECT_|GF_|POSTGRES_|DO_NOT_TRACK$|CLUSTER_ID$|KAFKA_)")  # other programs' own variables
REFERENCE = re.compile(r"\$\{([A-Z_]+)(:[-?][^}]*)?\}")
S4 = {"POLICY_MAX_POSITIONS_TOTAL": "10", "POLICY_MAX_PER_SYMBOL": "3", "POLICY_MAX_PER_REGIME": "5", "POLICY_MAX_EXPOSURE_TOTAL": "5000.0",
      "POLICY_MAX_EXPOSURE_PER_SYMBOL": "1000.0", "POLICY_ALLOW_SCALE_IN": "true", "POLICY_SCALE_IN_MAX": "2",
      "POLICY_SCALE_IN_CONF_DELTA": "0.05", "POLICY_COOLDOWN_SYMBOL": "300", "POLICY_COOLDOWN_GLOBAL": "60", "POLICY_MIN_CONFIDENCE": "0.7"}
each = pytest.mark.parametrize("name", SERVICES)
each_of_ours = pytest.mark.parametrize("name", OURS)


def words(service: dict) -> list[str]:
    return [*service.get("entrypoint", []), *service["command"]]


def modules() -> dict[str, str]:
    return {n: words(s)[words(s).index("-m") + 1] for n, s in OURS.items() if "-m" in words(s)}


def given(value: object) -> str:
    """A value as compose fills it in without any environment; what is required becomes `secret`."""
    return REFERENCE.sub(lambda m: m[2][2:] if (m[2] or "").startswith(":-") else "secret", str(value))


@pytest.mark.parametrize("name, module", modules().items())
def test_a_service_runs_a_module_that_exists(name, module):
    assert importlib.util.find_spec(module), f"{name} runs {module}, which is not there"


@each
def test_an_image_is_pinned_by_a_tag_that_does_not_move(name):
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image and re.search(r"\d+\.\d+", tag), f"{name}: {tag}"


@each
def test_nothing_is_published_beyond_loopback(name):
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


@each
def test_whoever_stays_up_says_whether_it_is_healthy_and_is_started_again(name):
    service = SERVICES[name]
    assert service["restart"] in ("unless-stopped", "no")
    assert "healthcheck" in service or service["restart"] == "no"


@each
def test_files_of_the_project_are_mounted_read_only_and_exist(name):
    for volume in SERVICES[name].get("volumes", []):
        source, *rest = volume.split(":")
        if source.startswith("./"):
            assert rest[-1] == "ro" and (ROOT / source).exists(), volume
        else:
            assert source in TREE["volumes"], volume


@each_of_ours
def test_our_containers_are_read_only_without_capabilities(name):
    service = OURS[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]


@each_of_ours
def test_every_variable_that_we_are_given_is_one_that_we_read(name):
    ours = {v for v in OURS[name]["environment"] if not FOREIGN.match(v) or v == "KAFKA_BOOTSTRAP_SERVERS"}
    assert ours - NAMES == set()


@each_of_ours
def test_the_settings_accept_what_a_container_is_told(name):
    told = {k: given(v) for k, v in OURS[name]["environment"].items()}
    settings = load(env=told)
    if "KAFKA_BOOTSTRAP_SERVERS" in told:
        assert settings.kafka.bootstrap == "kafka:9092" and settings.ledger.url.startswith("postgresql+psycopg://")


@pytest.mark.parametrize("name", ["risk", "risk-real"])
def test_the_eleven_limits_have_s4s_values_and_mean_the_defaults(name):
    got = {k: given(v) for k, v in OURS[name]["environment"].items() if k.startswith("POLICY_")}
    assert got == S4
    assert load(env=got).policy == load(env={}).policy


def test_secrets_come_from_the_environment_and_have_no_default():
    for name in ("POSTGRES_PASSWORD", "GRAFANA_ADMIN_PASSWORD"):
        assert {m[2][:2] for m in REFERENCE.finditer(TEXT) if m[1] == name} == {":?"}
    for line in TEXT.splitlines():
        key, _, value = line.strip().partition(": ")
        if re.search(r"PASSWORD|SECRET|TOKEN|API_KEY", key) and not key.startswith("#"):
            assert value.startswith("${"), line


def test_the_example_environment_lists_what_is_required_without_a_value_and_nothing_unknown():
    pairs = dict(line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#"))
    required = {m[1] for m in REFERENCE.finditer(TEXT) if (m[2] or "").startswith(":?")}
    required |= {s["environment"] for s in TREE["secrets"].values()}
    assert required <= pairs.keys() and not any(pairs[r] for r in required)
    assert pairs.keys() - required <= NAMES


def test_paper_and_real_run_the_same_services_but_the_exchange():
    running = modules()
    by = {p: {running[n] for n, s in OURS.items() if p in s.get("profiles", []) and n in running} for p in ("paper", "real")}
    assert by["paper"] - by["real"] == {"streams.exchange"} and by["real"] < by["paper"]
    for name, service in OURS.items():
        if service.get("profiles") == ["real"]:
            assert given(service["environment"]["EXCHANGE_MODE"]) == "real"
            assert service["networks"]["default"]["aliases"] == [name.removesuffix("-real")]
        elif service.get("profiles") == ["paper"]:
            assert given(service["environment"]["EXCHANGE_MODE"]) == "paper"


def test_prometheus_scrapes_exactly_the_services_that_export():
    exporting = {n for n, s in OURS.items() if "--metrics-port" in s["command"] and s["profiles"] == ["paper"]}
    assert exporting == set(CONTAINERS)
    assert all(s["command"][-1] == str(load(env={}).ports.metrics) for n, s in OURS.items() if n in exporting)


def test_what_a_service_waits_for_exists_is_in_its_profile_and_makes_no_circle():
    graph = {n: set(s.get("depends_on", {})) for n, s in SERVICES.items()}
    assert set().union(*graph.values()) <= SERVICES.keys()
    list(TopologicalSorter(graph).static_order())
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert set(SERVICES[other].get("profiles", service.get("profiles", []))) >= set(service.get("profiles", []))
            assert how["condition"] != "service_healthy" or "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"


def test_the_image_installs_the_lock_by_hash_and_runs_as_nobody_special():
    text = (ROOT / "Dockerfile").read_text()
    assert "pip install --no-deps --require-hashes -r requirements.lock" in text and "libgomp1" in text
    users = re.findall(r"^USER (\S+)", text, re.M)
    assert users and users[-1] not in ("root", "0")
    assert re.search(r"^FROM python:3\.11-slim", text, re.M)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".env", ".env.*", ".git", "data"} <= set(ignored)


def test_every_alert_reaches_somebody():
    tree = yaml.safe_load((ROOT / "config/alertmanager.yml").read_text())
    receivers = {r["name"]: r for r in tree["receivers"]}
    assert tree["route"]["receiver"] in receivers
    assert {r["receiver"] for r in tree["route"]["routes"]} <= receivers.keys()
    for receiver in receivers.values():
        for hook in receiver["webhook_configs"]:
            assert hook["url_file"].removeprefix("/run/secrets/") in TREE["secrets"]


# the ceremony's desks

@pytest.mark.parametrize("name", DESKS)
def test_a_ceremonys_desk_has_the_runbooks_name_and_its_command_is_one_that_is_understood(name):
    service = SERVICES[name]
    assert service["container_name"] == name and modules()[name] == "scripts.run_live"
    args = run_live.arguments([given(w) for w in words(service)[3:]])
    assert args.exchange and args.symbols and args.metrics_port == load(env={}).ports.metrics


def test_canary_and_control_as_they_stand_in_the_compose_file_may_run_side_by_side():
    """Also where an operator has moved a symbol, or taken enforcement off the canary."""
    path = [ROOT / "docker-compose.yml"]
    moved = {"CANARY_SYMBOLS": "BTCUSDT,ETHUSDT", "CONTROL_SYMBOLS": "SOLUSDT"}
    for env, enforces in (({}, True), (moved, True), ({"CANARY_ENFORCE": "0"}, False)):
        both = of_compose(path, ["grinder_canary", "grinder_control"], {"POSTGRES_PASSWORD": "x"} | env)
        assert faults(both, ["BTCUSDT", "ETHUSDT", "SOLUSDT"]) == []
        assert [one.settings.fill_prob.enforce for one in both] == [enforces, False]
    assert faults(of_compose(path, ["grinder_canary", "grinder_control"], {"CONTROL_SYMBOLS": "BTCUSDT"}), ["BTCUSDT"])


def test_desks_that_share_a_broker_share_no_topic_no_ledger_and_no_folder_of_evidence():
    desks = [one.settings for one in of_compose([ROOT / "docker-compose.yml"], [*DESKS, "risk"], {})]
    for of in (lambda s: s.instance, lambda s: s.feed, lambda s: s.ledger.url, lambda s: s.fill_prob.artifact_dir):
        assert len({of(s) for s in desks}) == len(desks)
    made = {m[1] for f in (ROOT / "config/postgres").glob("*.sql") for m in re.finditer(r"^CREATE DATABASE (\w+);", f.read_text(), re.M)}
    assert {s.ledger.url.rsplit("/", 1)[1] for s in desks} <= made | {SERVICES["postgres"]["environment"]["POSTGRES_DB"]}


def test_the_gates_variables_reach_a_desk_from_the_host_and_without_them_nothing_is_enforced_or_resolved():
    told = {"GRINDER_FILL_MODEL_ENFORCE": "1", "GRINDER_FILL_PROB_MIN_BPS": "2600", "GRINDER_FILL_PROB_AUTO_THRESHOLD": "1",
            "GRINDER_FILL_PROB_EVAL_DIR": "ml/eval/fill_model_v0", "GRINDER_FILL_PROB_EVAL_MAX_AGE_HOURS": "48"}
    [calm], [asked] = (of_compose([ROOT / "docker-compose.yml"], ["grinder"], env) for env in ({}, told))
    assert not calm.settings.fill_prob.enforce and not calm.settings.fill_prob.eval_dir and calm.settings.fill_prob.min_bps == 2500
    got = asked.settings.fill_prob
    assert (got.enforce, got.min_bps, got.auto_threshold) == (True, 2600, True)
    assert (got.eval_dir, got.eval_max_age_hours) == ("ml/eval/fill_model_v0", "48")


def test_prometheus_finds_the_ceremonys_desks_while_they_are_there():
    tree = yaml.safe_load((ROOT / "config/prometheus.yml").read_text())
    [job] = [j for j in tree["scrape_configs"] if "dns_sd_configs" in j]
    [found] = job["dns_sd_configs"]
    assert found["names"] == list(DESKS) and {SERVICES[n]["command"][-1] for n in DESKS} == {str(found["port"])}


# the overlay of several brokers

HA = yaml.safe_load((ROOT / "docker-compose.ha.yml").read_text())
BROKERS = [n for n in HA["services"] if n.startswith("kafka")]


def over(name: str) -> dict:
    """A service as both files come to, as compose merges: mappings key by key, the rest replaced."""
    def merged(a, b):
        if not (isinstance(a, dict) and isinstance(b, dict)):
            return b
        return {k: merged(a[k], b[k]) if k in a and k in b else b.get(k, a.get(k)) for k in a | b}
    return merged(SERVICES.get(name, {}), HA["services"][name])


def test_the_overlay_speaks_of_every_service_and_adds_only_brokers():
    assert HA["services"].keys() - SERVICES.keys() == {"kafka-2", "kafka-3"} and SERVICES.keys() <= HA["services"].keys()
    assert all(over(n)["restart"] == ("no" if n == "topics" else "always") for n in HA["services"])


def test_the_overlays_brokers_are_one_cluster_of_three_that_may_lose_one():
    told = {n: over(n)["environment"] for n in BROKERS}
    assert {e["KAFKA_NODE_ID"]: n for n, e in told.items()} == {"1": "kafka", "2": "kafka-2", "3": "kafka-3"}
    assert {e["KAFKA_CONTROLLER_QUORUM_VOTERS"] for e in told.values()} == {"1@kafka:9093,2@kafka-2:9093,3@kafka-3:9093"}
    assert all(e["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{n}:9092" for n, e in told.items())
    own = {"KAFKA_NODE_ID", "KAFKA_ADVERTISED_LISTENERS"}
    alike = [{k: v for k, v in e.items() if k not in own} for e in told.values()]
    assert alike[0] == alike[1] == alike[2] and SERVICES["kafka"]["environment"].keys() <= alike[0].keys() | own
    volumes = [over(n)["volumes"][0].split(":")[0] for n in BROKERS]
    assert len(set(volumes)) == 3 and set(volumes) <= TREE["volumes"].keys() | HA["volumes"].keys()
    assert {over(n)["image"] for n in BROKERS} == {SERVICES["kafka"]["image"]} and all("healthcheck" in over(n) for n in BROKERS)


@each_of_ours
def test_in_the_overlay_every_service_knows_all_brokers_and_acknowledges_on_two(name):
    told = over(name)["environment"]
    if "KAFKA_BOOTSTRAP_SERVERS" in SERVICES[name]["environment"]:
        got = load(env={k: given(v) for k, v in told.items()}).kafka
        assert (got.bootstrap.split(","), got.replication, got.min_insync) == ([f"{b}:9092" for b in BROKERS], 3, 2)
    if {"topics", *DESKS} & {name}:
        assert set(BROKERS) <= over(name)["depends_on"].keys()      # who makes topics waits for all who shall keep them
