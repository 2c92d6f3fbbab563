import dataclasses
import ipaddress
import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from quarterhour.errors import SettingsError
from quarterhour.keys import Grant, Role
from quarterhour.settings import (
    OPTIONS,
    GatewaySettings,
    RunnerSettings,
    UpSettings,
    load,
    options_of,
    settings_options,
    to_environment,
)
from quarterhour.users import Users

PROCESSES = (GatewaySettings, RunnerSettings, UpSettings)
GRANT = Grant(digest=b"\xa1" * 32, roles=frozenset({Role.READ, Role.INVOKE}), functions=("a-*", "b"))
REQUIRED = {"broker": "nats://127.0.0.1:4222"}


def up(directory: Path, flags: dict[str, object] | None = None, **environment: str) -> UpSettings:
    return load(UpSettings, flags or {}, environment=environment, directory=directory)


def refusal(directory: Path, flags: dict[str, object] | None = None, **environment: str) -> str:
    with pytest.raises(SettingsError) as caught:
        up(directory, flags, **environment)
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(tmp_path: Path) -> None:
    assert up(tmp_path).lease_s == 30
    write(tmp_path / "quarterhour.toml", "[quarterhour]\nlease = 40")
    assert up(tmp_path).lease_s == 40
    assert up(tmp_path, QUARTERHOUR_LEASE="50").lease_s == 50
    assert up(tmp_path, {"lease_s": "60"}, QUARTERHOUR_LEASE="50").lease_s == 60


@pytest.mark.parametrize("process", PROCESSES)
def test_each_option_can_be_given_in_each_place(process: type[Any], tmp_path: Path) -> None:
    values: dict[str, tuple[object, object]] = {
        "functions": ("there", tmp_path / "there"),
        "host": ("0.0.0.0", "0.0.0.0"),
        "port": (9000, 9000),
        "runners": (3, 3),
        "slots": (4, 4),
        "data_dir": ("data", tmp_path / "data"),
        "broker": ("nats://there:4222", "nats://there:4222"),
        "server": ("granian", "granian"),
        "synchronous_limit_s": (2.5, 2.5),
        "background_limit_s": (3, 3.0),
        "request_bytes_max": (1000, 1000),
        "response_bytes_max": (2000, 2000),
        "stream_bytes_max": (3000, 3000),
        "body_memory_bytes_max": (2097152, 2097152),
        "header_bytes_max": (4096, 4096),
        "waiting_max": (7, 7),
        "requests_max": (7, 7),
        "lateness_s": (0.5, 0.5),
        "waiting_age_s": (60, 60.0),
        "function_environment": ("SMTP_URL,A_B", ("SMTP_URL", "A_B")),
        "function_python": (sys.executable, Path(sys.executable)),
        "function_user": ("200000-200999", Users(first=200_000, last=200_999)),
        "cache_dir": ("cache", tmp_path / "cache"),
        "expose_errors": (True, True),
        "call_scheduled": (True, True),
        "trusted_proxies": ("10.0.0.0/8, ::1", tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "::1")))),
        "api_keys_file": ("keys", tmp_path / "keys"),
        "api_keys": (f"sha256:{'a1' * 32} read,invoke a-*,b", (GRANT,)),
        "allow_anonymous": (True, True),
        "cors_origins": ("https://a.example,*", ("https://a.example", "*")),
        "tls_cert": ("cert.pem", tmp_path / "cert.pem"),
        "tls_key": ("key.pem", tmp_path / "key.pem"),
        "drain_s": (12, 12.0),
        "grace_s": (2, 2.0),
        "withdraw_missing": (True, True),
        "watch": (False, False),
        "lease_s": (5, 5.0),
        "namespace": ("other", "other"),
        "metrics_host": ("0.0.0.0", "0.0.0.0"),
        "metrics_port": (9999, 9999),
        "advertise": ("runner-1", "runner-1"),
        "log_format": ("json", "json"),
    }
    assert set(values) == set(OPTIONS)
    for option, default in options_of(process):
        given, expected = values[option.field]
        text = str(given).lower() if isinstance(given, bool) else str(given)
        toml = text if isinstance(given, int | float) else f'"{text}"'
        (tmp_path / "quarterhour.toml").unlink(missing_ok=True)
        broker = {} if option.field == "broker" else REQUIRED
        by_flag = load(process, {**broker, option.field: text}, environment={}, directory=tmp_path)
        by_variable = load(process, broker, environment={option.variable: text}, directory=tmp_path)
        write(tmp_path / "quarterhour.toml", f"[quarterhour]\n{option.name} = {toml}")
        by_file = load(process, broker, environment={}, directory=tmp_path)
        for loaded in (by_flag, by_variable, by_file):
            assert getattr(loaded, option.field) == expected
        if option.field not in {
            "call_scheduled",
            "expose_errors",
            "watch",
        }:  # their defaults differ between the processes
            assert expected != default


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("lease_s", "banana", "a number of seconds from 2 to 300"),
        ("lease_s", "1.9", "a number of seconds from 2 to 300"),
        ("lease_s", "nan", "a number of seconds from 2 to 300"),
        ("lease_s", "inf", "a number of seconds from 2 to 300"),
        ("lease_s", "301", "a number of seconds from 2 to 300"),
        ("port", "65536", "a whole number from 0 to 65535"),
        ("port", "-1", "a whole number from 0 to 65535"),
        ("port", "80.5", "a whole number from 0 to 65535"),
        ("runners", "0", "a whole number from 1 to 64"),
        ("slots", "9" * 5000, "a whole number from 1 to 1024"),
        ("request_bytes_max", "6 MiB", "a number of bytes from 0 to 67108864"),
        ("server", "gunicorn", "hypercorn or granian"),
        ("log_format", "JSON", "auto or console or json"),
        ("expose_errors", "maybe", "true or false"),
        ("host", "http://here", "a host name or an address, without a port"),
        ("host", "a b", "a host name or an address, without a port"),
        ("host", "a..b", "a host name or an address, without a port"),
        ("host", "a" * 64, "a host name or an address, without a port"),
        ("host", "a." * 127 + "bc", "a host name or an address, without a port"),
        ("namespace", "a.b", "1 to 32 of A-Z a-z 0-9 _ -"),
        ("namespace", "a" * 33, "1 to 32 of A-Z a-z 0-9 _ -"),
        ("broker", "127.0.0.1:4222", "an address such as nats://HOST:4222"),
        ("function_environment", "SMTP_URL,A-B", "names of environment variables, separated by commas"),
        ("function_environment", "A=B", "names of environment variables, separated by commas"),
        ("trusted_proxies", "10.0.0.1/8", "networks such as 10.0.0.0/8 or addresses"),
        ("trusted_proxies", "everyone", "networks such as 10.0.0.0/8 or addresses"),
        ("cors_origins", "app.example.com", "origins such as https://app.example.com"),
        ("cors_origins", "https://app.example.com/", "origins such as https://app.example.com"),
        ("tls_cert", "a\0b", "the path of a file"),
        ("function_python", "no-such-python", "a Python interpreter that can be run"),
        ("function_python", "/etc/passwd", "a Python interpreter that can be run"),
        ("functions", "a\0b", "the path of a folder"),
    ],
)
def test_a_bad_value_names_its_place_itself_and_what_is_allowed(
    field: str, value: str, allowed: str, tmp_path: Path
) -> None:
    option = OPTIONS[field]
    nothing: dict[str, str] = {}
    for place, flags, environment in (
        (option.flag, {field: value}, nothing),
        (option.variable, nothing, {option.variable: value}),
    ):
        with pytest.raises(SettingsError) as caught:
            load(UpSettings, flags, environment=environment, directory=tmp_path)
        text = str(caught.value)
        assert text.startswith(f"{place} is {value!r}"[:100])
        assert f", but must be {allowed}" in text
        assert len(text) < 500
        assert "\n" not in text


@pytest.mark.parametrize(
    "host", ["a" * 63 + ".b.", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "a." * 127 + "b"]
)
def test_a_host_is_what_can_be_looked_up(host: str, tmp_path: Path) -> None:
    assert up(tmp_path, {"host": host}).host == host
    host.encode("idna")  # as socket does, which raises for others something that is no OSError


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("lease = true", "lease is True, but must be a number of seconds from 2 to 300."),
        ("port = 80.5", "port is 80.5, but must be a whole number from 0 to 65535."),
        (f"lease = 1{'0' * 400}", "but must be a number of seconds from 2 to 300."),
        ("slots = [1]", "slots is [1], but must be a whole number from 1 to 1024."),
        ("host = 1", "host is 1, but must be a host name or an address, without a port."),
        ("server = []", "server is [], but must be hypercorn or granian."),
        ("expose-errors = 1", "expose-errors is 1, but must be true or false."),
        ("function-environment = [1]", "function-environment is [1], but must be names of environment"),
        ("functions = {}", "functions is {}, but must be the path of a folder."),
        ("synchronous_limit = 3", "synchronous_limit is no setting; do you mean synchronous-limit?"),
        ("leese = 3", "leese is no setting; do you mean lease?"),
        ("qqqqqqq = 3", "qqqqqqq is no setting; there are advertise, allow-anonymous, api-keys,"),
    ],
)
def test_a_bad_line_of_the_file_names_file_and_key(line: str, sentence: str, tmp_path: Path) -> None:
    file = write(tmp_path / "netlify.toml", f"[quarterhour]\n{line}")
    text = refusal(tmp_path)
    assert text.startswith(f"{file}: [quarterhour] {line.split(maxsplit=1)[0]} is ")
    assert sentence in text


def test_what_the_file_says_may_be_overridden_but_not_be_wrong(tmp_path: Path) -> None:
    write(tmp_path / "quarterhour.toml", "[quarterhour]\nno-such-thing = 1")
    assert "no-such-thing is no setting" in refusal(tmp_path, {"lease_s": "3"})


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "quarterhour.toml", "[quarterhour")
    assert refusal(tmp_path).startswith(f"{file} is not valid TOML: ")
    file.write_bytes(b"\xff\xfe")
    assert refusal(tmp_path).startswith(f"{file} is not valid TOML: ")
    file.write_text("quarterhour = 3")
    assert refusal(tmp_path) == f"{file}: quarterhour is 3, but must be a table, [quarterhour]."
    file.write_text("#" * (1024 * 1024 + 1))
    assert "at most 1048576 are read" in refusal(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "quarterhour.toml", "")
    file.chmod(0)
    assert refusal(tmp_path) == f"{file} cannot be read: Permission denied."


def test_the_file_in_the_working_directory_wins_over_the_one_beside_the_functions(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    write(there / "quarterhour.toml", "[quarterhour]\nslots = 3\ndata-dir = 'data'")
    loaded = up(here, {"functions": "../there/functions"})
    assert (loaded.slots, loaded.data_dir.resolve()) == (3, there.resolve() / "data")
    write(here / "netlify.toml", "[quarterhour]\nslots = 4")
    assert up(here, {"functions": "../there/functions"}).slots == 4
    write(here / "quarterhour.toml", "[quarterhour]\nslots = 5")
    assert up(here, {"functions": "../there/functions"}).slots == 5


def test_the_functions_folder_is_found_in_netlifys_keys(tmp_path: Path) -> None:
    file = tmp_path / "netlify.toml"
    assert up(tmp_path).functions == tmp_path / "functions"
    write(file, '[build]\nfunctions = "a"')
    assert up(tmp_path).functions == tmp_path / "a"
    write(file, '[build]\nfunctions = "a"\n[functions]\ndirectory = "b"')
    assert up(tmp_path).functions == tmp_path / "b"
    write(file, '[functions]\ndirectory = "b"\n[quarterhour]\nfunctions = "c"')
    assert up(tmp_path).functions == tmp_path / "c"
    assert up(tmp_path, QUARTERHOUR_FUNCTIONS="d").functions == tmp_path / "d"
    write(file, "[functions]\ndirectory = 3")
    assert refusal(tmp_path).startswith(f"{file}: [functions] directory is 3, but must be the path")
    write(file, "[functions.directory]\nbackground = true")
    assert up(tmp_path).functions == tmp_path / "functions"


def test_an_empty_variable_counts_as_not_set_unless_nothing_is_a_value(tmp_path: Path) -> None:
    write(tmp_path / "quarterhour.toml", '[quarterhour]\nlease = 40\nfunction-environment = ["A"]')
    loaded = up(tmp_path, QUARTERHOUR_LEASE="", QUARTERHOUR_FUNCTION_ENVIRONMENT="")
    assert (loaded.lease_s, loaded.function_environment) == (40, ())
    assert up(tmp_path).function_environment == ("A",)


def test_a_missing_broker_is_said_so(tmp_path: Path) -> None:
    for process in (GatewaySettings, RunnerSettings):
        with pytest.raises(SettingsError, match=r"--broker is missing: .* QUARTERHOUR_BROKER\. "):
            load(process, {}, environment={}, directory=tmp_path)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    text = refusal(tmp_path, QUARTERHOUR_BROKER="nats://ada:secret@there:4222 x,nats://b:hidden@y")
    assert "secret" not in text
    assert "hidden" not in text
    assert "nats://***@there:4222" in text


@pytest.mark.parametrize("text", ["qh_secret admin", "sha256:secret admin", "anonymous secret", "secret"])
def test_a_line_of_api_keys_is_not_shown(text: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, QUARTERHOUR_API_KEYS=f"anonymous read; {text}")
    assert said.startswith("QUARTERHOUR_API_KEYS has a bad line; line 2: it")
    assert "secret" not in said
    write(tmp_path / "quarterhour.toml", f"[quarterhour]\napi-keys = [{text!r}, 'anonymous read']")
    said = refusal(tmp_path)
    assert "[quarterhour] api-keys has a bad line; line 1: it" in said
    assert "secret" not in said
    write(tmp_path / "quarterhour.toml", "[quarterhour]\napi-keys = 3")
    assert "api-keys must be lines as in a file of API keys" in refusal(tmp_path)


def test_api_keys_that_are_given_have_one_among_them(tmp_path: Path) -> None:
    sentence = "has no key in it, and so nobody would need one; leave it out if that is meant."
    for text in ("# all keys taken back", ";", " "):
        assert refusal(tmp_path, QUARTERHOUR_API_KEYS=text) == f"QUARTERHOUR_API_KEYS {sentence}"
    for value in ("[]", "['# none']"):
        write(tmp_path / "quarterhour.toml", f"[quarterhour]\napi-keys = {value}")
        assert refusal(tmp_path).endswith(f"api-keys {sentence}")
    assert up(tmp_path, QUARTERHOUR_API_KEYS="").api_keys == ()


def test_every_field_has_an_option_and_every_option_names_of_its_own() -> None:
    fields = {field.name for process in PROCESSES for field in dataclasses.fields(process)}
    assert fields == set(OPTIONS)
    assert all(field == option.field for field, option in OPTIONS.items())
    assert len({option.name for option in OPTIONS.values()}) == len(OPTIONS)


def test_the_defaults_of_up_are_those_of_its_children_but_for_five() -> None:
    ours = {option.field: default for option, default in options_of(UpSettings)}
    theirs = {
        option.field: default
        for process in (GatewaySettings, RunnerSettings)
        for option, default in options_of(process)
    }
    differing = {field for field in ours.keys() & theirs.keys() if ours[field] != theirs[field]}
    assert differing == {"broker", "cache_dir", "call_scheduled", "drain_s", "expose_errors", "watch"}
    assert theirs.keys() - ours.keys() == {"grace_s", "withdraw_missing"}


def test_defaults_are_allowed_values_and_survive_being_written(tmp_path: Path) -> None:
    for process in PROCESSES:
        for option, default in options_of(process):
            if default not in (None, dataclasses.MISSING):
                text = option.kind.write(default)
                assert option.kind.read(text, Path()) == default


def test_what_up_hands_to_its_children_arrives_whatever_the_file_says(tmp_path: Path) -> None:
    settings = dataclasses.replace(
        up(tmp_path, {"trusted_proxies": "10.0.0.0/8,::1", "function_environment": "A,B", "lease_s": "2.5"}),
        api_keys=(GRANT, Grant(digest=None, roles=frozenset({Role.INVOKE}))),
        api_keys_file=tmp_path / "keys",
        tls_cert=tmp_path / "cert",
        tls_key=tmp_path / "key",
        broker="nats://there:4222",
        cache_dir=tmp_path / "cache",
        expose_errors=False,
        slots=3,
    )
    write(tmp_path / "quarterhour.toml", "[quarterhour]\nslots = 9\nexpose-errors = true\nrunners = 7")
    for process in (GatewaySettings, RunnerSettings):
        child = load(process, {}, environment=to_environment(settings, process), directory=tmp_path)
        for field in dataclasses.fields(process):
            if field.name not in {"grace_s", "withdraw_missing"}:  # `up` gives them itself
                assert getattr(child, field.name) == getattr(settings, field.name), field.name


@click.command()
@settings_options(UpSettings)
def command(settings: UpSettings) -> None:
    click.echo(repr(settings))


def test_the_options_of_a_command_are_made_from_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, ["--lease", "3", "--no-expose-errors", "--trusted-proxies", "::1"])
    assert result.exit_code == 0
    assert "lease_s=3.0" in result.output
    assert "expose_errors=False" in result.output
    text = CliRunner().invoke(command, ["--help"]).output
    for option, _ in options_of(UpSettings):
        assert option.flag in text


def test_a_bad_value_ends_a_command_with_one_sentence_and_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, ["--port", "banana"])
    assert result.exit_code == 1
    assert result.output == "Error: --port is 'banana', but must be a whole number from 0 to 65535.\n"
