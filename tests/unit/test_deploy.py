"""The files in deploy/ agree with the project and with each other.

No container engine is needed: what they name (options, files, ports, hosts) is held against what there is,
and the programs that will read them check them here.
"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import yaml

from gateway.keyring import open_keyring
from gateway.server import GRACE_S
from gateway.wiring import FINISH_MARGIN_S
from quarterhour.broker.nats.permissions import ROLES, variable
from quarterhour.cli.api import API_KEY
from quarterhour.cli.nats_server import PAYLOAD_BYTES_MAX
from quarterhour.keys import Role
from quarterhour.settings import OPTIONS, GatewaySettings, RunnerSettings, load, options_of
from tests.nats_server import nats_server_path
from tests.prometheus import KEY_FILE, program

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
HAND_BACK_S = 10.0  # at the end of its drain time a runner stops what still runs and hands it back

S = TypeVar("S", GatewaySettings, RunnerSettings)


def read_yaml(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


COMPOSE = read_yaml("compose.yaml")
SERVICES: Mapping[str, Any] = COMPOSE["services"]
SECRETS = dict(
    line.split("=", 1)
    for line in subprocess.run(
        ["sh", DEPLOY / "new-keys.sh"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
)
PUBLISHED = {"gateway", "grafana", "prometheus"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, an instruction and its text at a time."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for line in lines if line.strip() for word, _, rest in [line.partition(" ")]]


def last(instruction: str) -> str:
    """What holds in the end: the text of the last instruction of a kind."""
    return [text for word, text in instructions() if word == instruction][-1]


def settings_of(service: str, settings: type[S]) -> S:
    """The settings with which a service starts, read as the process will read them."""
    _, *arguments = SERVICES[service]["command"]
    fields = {option.flag: option.field for option, _ in options_of(settings)}
    flags = {fields[flag]: value for flag, value in zip(arguments[::2], arguments[1::2], strict=True)}
    variables = {
        name: re.sub(r"\$\{(\w+)[^}]*}", lambda found: SECRETS.get(found[1], "secret").strip("'"), value)
        for name, value in SERVICES[service]["environment"].items()
        if value is not None
    }
    known = {option.variable for option, _ in options_of(settings)}
    assert {name for name in variables if name.startswith("QUARTERHOUR_")} <= known
    return load(settings, flags, environment=variables, directory=Path(last("WORKDIR")))


def seconds(text: str) -> float:
    """Compose's 15m30s."""
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert found, text
    minutes, rest = (float(number or 0) for number in found.groups())
    return 60 * minutes + rest


def mounts(service: str) -> dict[str, str]:
    """What of deploy/ a service sees, by where it sees it."""
    pairs = [volume.split(":")[:2] for volume in SERVICES[service].get("volumes", ())]
    return {target: source for source, target in pairs}


# The image


def test_the_image_is_made_of_what_there_is() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [
        source
        for word, text in instructions()
        if word == "COPY" and "--from" not in text
        for source in text.split()[:-1]
    ]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert set(packages["packages"]) < set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored


def test_it_installs_the_project_with_extras_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (installed,) = re.findall(r'"\.\[([\w,]+)]"', (DEPLOY / "Dockerfile").read_text())
    assert set(installed.split(",")) == set(project["optional-dependencies"]) - {"dev"}
    assert json.loads(last("ENTRYPOINT"))[0] in project["scripts"]


def test_it_runs_as_nobody_special_where_functions_are_found() -> None:
    assert int(last("USER")) > 0
    (created,) = (text for _, text in instructions() if text.startswith("useradd"))
    assert f"--uid {last('USER')} " in created
    assert last("WORKDIR") == f"/home/{shlex.split(created)[-1]}"
    assert mounts("runner")[str(settings_of("runner", RunnerSettings).functions)] == "../functions"


def test_its_ports_are_those_that_are_listened_on() -> None:
    gateway = settings_of("gateway", GatewaySettings)
    runner = settings_of("runner", RunnerSettings)
    assert last("EXPOSE").split() == [str(gateway.port), str(runner.metrics_port)]


# Compose


def test_it_names_no_option_that_does_not_exist() -> None:
    variables = {option.variable for option in OPTIONS.values()} | {API_KEY}
    for file in DEPLOY.rglob("*"):
        if file.is_file() and file.suffix != ".json":
            named = set(re.findall(r"\bQUARTERHOUR_[A-Z_]+\b", file.read_text()))
            assert named <= variables | {variable(role) for role in ROLES}, file.name


def test_gateway_and_runner_listen_to_the_network() -> None:
    assert settings_of("gateway", GatewaySettings).host == "0.0.0.0"
    assert settings_of("runner", RunnerSettings).metrics_host == "0.0.0.0"


def test_the_gateway_lets_in_whom_it_was_given_keys_for_and_nobody_else() -> None:
    keyring = open_keyring(settings_of("gateway", GatewaySettings))
    assert keyring is not None
    assert not keyring.caller([]).grants
    assert keyring.caller([SECRETS[API_KEY].encode()]).may_for_all(Role.ADMIN)
    prometheus = keyring.caller([SECRETS["PROMETHEUS_KEY"].encode()])
    assert prometheus.may_for_all(Role.READ)
    assert not prometheus.may_for_some(Role.INVOKE)
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert COMPOSE["secrets"][secret] == {"environment": "PROMETHEUS_KEY"}
    gateways, runners = read_yaml("prometheus/prometheus.yml")["scrape_configs"]
    for asking in (gateways, runners["http_sd_configs"][0]):
        assert asking["authorization"] == {"credentials_file": f"/run/secrets/{secret}"}
    assert "authorization" not in runners  # the key is the gateway's, not each runner's


@pytest.mark.parametrize(("service", "settings"), [("gateway", GatewaySettings), ("runner", RunnerSettings)])
def test_the_broker_is_the_one_that_is_started(service: str, settings: type[Any]) -> None:
    broker = urlsplit(settings_of(service, settings).broker)
    conf = (DEPLOY / "nats" / "nats.conf").read_text()
    assert broker.hostname in SERVICES
    assert f'listen: "0.0.0.0:{broker.port}"' in conf
    allowed = f"password: $NATS_{service.upper()}_PASSWORD, permissions: $QUARTERHOUR_{service.upper()}"
    assert broker.username == service
    assert f"{{ user: {service}, {allowed} }}" in conf
    assert broker.query == "sync_interval=always&max_file_store=10GB"
    assert "  sync_interval: always" in conf
    assert "  max_file_store: 10GB" in conf


def test_nats_understands_its_configuration() -> None:
    done = subprocess.run(
        [nats_server_path(), "-t", "-c", DEPLOY / "nats" / "nats.conf"],
        env={"NATS_GATEWAY_PASSWORD": "p0", "NATS_RUNNER_PASSWORD": "p1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert mounts("nats") == {
        "/etc/nats/nats-server.conf": "./nats/nats.conf",
        "/etc/nats/permissions.conf": "./nats/permissions.conf",
        "/data": "nats-data",
    }


def test_nats_takes_the_largest_message() -> None:
    (mebibytes,) = re.findall(
        r"^max_payload: (\d+)MB$", (DEPLOY / "nats/nats.conf").read_text(), re.MULTILINE
    )
    assert int(mebibytes) * 1024 * 1024 >= PAYLOAD_BYTES_MAX


def test_only_what_is_meant_to_be_is_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == PUBLISHED
    for ports in published.values():
        (port,) = ports
        address, outside, inside = port.split(":")
        assert (address, outside) == ("127.0.0.1", inside)
    port = settings_of("gateway", GatewaySettings).port
    assert published["gateway"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/readyz" in SERVICES["gateway"]["healthcheck"]["test"][-1]


def test_what_is_mounted_is_there() -> None:
    named = set(COMPOSE["volumes"])
    for name in SERVICES:
        for source in mounts(name).values():
            assert source in named or (DEPLOY / source).exists(), source


def test_each_has_a_limit_of_memory_and_comes_back() -> None:
    for service in SERVICES.values():
        assert service["deploy"]["resources"]["limits"]["memory"]
        assert service["restart"] == "unless-stopped"


def test_they_are_given_the_time_that_they_need_to_end() -> None:
    gateway = settings_of("gateway", GatewaySettings)
    needed_s = gateway.synchronous_limit_s + FINISH_MARGIN_S + GRACE_S
    assert seconds(SERVICES["gateway"]["stop_grace_period"]) > needed_s
    runner = settings_of("runner", RunnerSettings)
    assert runner.drain_s >= runner.background_limit_s  # so that a deploy lets everything finish
    assert seconds(SERVICES["runner"]["stop_grace_period"]) >= runner.drain_s + HAND_BACK_S


# Prometheus


def test_prometheus_asks_the_services_of_compose() -> None:
    port = settings_of("gateway", GatewaySettings).port
    gateways, runners = read_yaml("prometheus/prometheus.yml")["scrape_configs"]
    (static,), (found,) = gateways["static_configs"], runners["http_sd_configs"]
    assert static["targets"] == [f"gateway:{port}"]
    assert found["url"] == f"http://gateway:{port}/v1/runners/targets"
    assert mounts("prometheus")["/etc/prometheus"] == "./prometheus"


def test_a_prometheus_beside_up_is_told_the_same() -> None:
    everywhere = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    here = everywhere.replace("gateway:8888", "localhost:8888")
    assert here != everywhere
    here = re.sub(rf"^ *authorization:\n +credentials_file: {KEY_FILE}\n", "", here, flags=re.MULTILINE)
    assert yaml.safe_load(here) == read_yaml("prometheus/local.yml")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "config", "local.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_is_content(arguments: tuple[str, ...], tmp_path: Path) -> None:
    for file in (DEPLOY / "prometheus").iterdir():
        (tmp_path / file.name).write_text(file.read_text().replace(KEY_FILE, file.name))
    done = subprocess.run(
        [program("promtool"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


RULES = [rule for group in read_yaml("prometheus/alerts.yml")["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_to_do_and_is_seen_to_fire(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert len(description) > len(summary)
    assert description.endswith(".")
    if "by (function" in rule["expr"]:
        assert "{{ $labels.function }}" in summary
        assert "{{ $labels.function }}" in description
    fires = {
        found
        for test in read_yaml("prometheus/alerts_test.yml")["tests"]
        for question in test.get("promql_expr_test", ())
        for sample in question["exp_samples"]
        for found in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert rule["alert"] in fires


# Grafana


def test_the_dashboard_is_what_the_code_makes() -> None:
    made = subprocess.run(
        [sys.executable, DEPLOY / "grafana" / "dashboard.py"], capture_output=True, text=True, check=True
    )
    file = DEPLOY / "grafana" / "dashboards" / "quarterhour.json"
    assert made.stdout == file.read_text(), f"make it anew: python deploy/grafana/dashboard.py > {file}"


def test_its_panels_can_be_told_apart_and_say_what_they_show() -> None:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/quarterhour.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            references = [target["refId"] for target in panel["targets"]]
            assert len(set(references)) == len(references) > 0
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert urlsplit(source["url"]).hostname in SERVICES
    interval = read_yaml("prometheus/prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    (provider,) = read_yaml("grafana/provisioning/dashboards/quarterhour.yml")["providers"]
    folder = provider["options"]["path"]
    assert mounts("grafana")[folder] == "./grafana/dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/quarterhour.json"
