"""The settings of each process: read once, at its entry point, into a frozen object.

A flag wins over the variable `QUARTERHOUR_<OPTION>`, that over the project's file (`quarterhour.toml`
or `netlify.toml`), that over the default. One table, `OPTIONS`, says what there is; a field's default
is that of the settings object. Nothing here keeps state, and nothing else reads the environment for settings.
"""

import dataclasses
import difflib
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from quarterhour.errors import SettingsError
from quarterhour.keys import Grant
from quarterhour.option_table import OPTIONS
from quarterhour.options import Network, Option
from quarterhour.project_file import ProjectFile, find_project_file, read_project_file
from quarterhour.users import Users

__all__ = [
    "OPTIONS",
    "GatewaySettings",
    "LogFormat",
    "RunnerSettings",
    "Server",
    "UpSettings",
    "load",
    "options_of",
    "settings_options",
    "to_environment",
]

LogFormat = Literal["auto", "console", "json"]
Server = Literal["hypercorn", "granian"]

_SHOWN_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What a gateway is told. Times are seconds, sizes bytes."""

    broker: str
    namespace: str = "quarterhour"
    lease_s: float = 30.0
    host: str = "127.0.0.1"
    port: int = 8888
    server: Server = "hypercorn"
    synchronous_limit_s: float = 60.0
    request_bytes_max: int = 6_291_456
    response_bytes_max: int = 6_291_456
    body_memory_bytes_max: int = 134_217_728
    header_bytes_max: int = 65_536
    requests_max: int = 2000
    lateness_s: float = 0.015
    waiting_max: int = 100_000
    waiting_age_s: float = 21_600.0
    expose_errors: bool = False
    call_scheduled: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    api_keys_file: Path | None = None
    api_keys: tuple[Grant, ...] = ()
    allow_anonymous: bool = False
    cors_origins: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    grace_s: float = 5.0
    log_format: LogFormat = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """What a runner is told. Times are seconds, sizes bytes."""

    broker: str
    namespace: str = "quarterhour"
    lease_s: float = 30.0
    functions: Path = Path("functions")
    slots: int = 16
    synchronous_limit_s: float = 60.0
    background_limit_s: float = 900.0
    response_bytes_max: int = 6_291_456
    stream_bytes_max: int = 20_971_520
    waiting_age_s: float = 21_600.0
    function_environment: tuple[str, ...] = ()
    function_python: Path | None = None
    function_user: Users | None = None
    cache_dir: Path = Path(".quarterhour/cache")
    drain_s: float = 900.0
    withdraw_missing: bool = False
    watch: bool = False
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9465
    advertise: str | None = None
    log_format: LogFormat = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpSettings:
    """What `quarterhour up` is told: its own, and what it hands to its gateway and runners."""

    functions: Path = Path("functions")
    host: str = "127.0.0.1"
    port: int = 8888
    runners: int = 2
    slots: int = 16
    data_dir: Path = Path(".quarterhour")
    broker: str | None = None
    server: Server = "hypercorn"
    synchronous_limit_s: float = 60.0
    background_limit_s: float = 900.0
    request_bytes_max: int = 6_291_456
    response_bytes_max: int = 6_291_456
    stream_bytes_max: int = 20_971_520
    body_memory_bytes_max: int = 134_217_728
    header_bytes_max: int = 65_536
    requests_max: int = 2000
    lateness_s: float = 0.015
    waiting_max: int = 100_000
    waiting_age_s: float = 21_600.0
    function_environment: tuple[str, ...] = ()
    function_python: Path | None = None
    function_user: Users | None = None
    cache_dir: Path | None = None
    expose_errors: bool = True
    call_scheduled: bool = True
    trusted_proxies: tuple[Network, ...] = ()
    api_keys_file: Path | None = None
    api_keys: tuple[Grant, ...] = ()
    allow_anonymous: bool = False
    cors_origins: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    drain_s: float = 30.0
    watch: bool = True
    lease_s: float = 30.0
    namespace: str = "quarterhour"
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9465
    advertise: str | None = None
    log_format: LogFormat = "auto"


_Settings = TypeVar("_Settings", bound=GatewaySettings | RunnerSettings | UpSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A value as it was given, and by whom: `place` begins the sentence if it is a bad one."""

    value: object
    place: str
    base: Path


def options_of(settings: type[_Settings]) -> list[tuple[Option, Any]]:
    """The options of a kind of process with their defaults (`dataclasses.MISSING`: none)."""
    return [(OPTIONS[field.name], field.default) for field in dataclasses.fields(settings)]


def load(
    settings: type[_Settings],
    flags: Mapping[str, object],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> _Settings:
    """The settings, each from the first place that gives it.

    `flags` holds the values of flags that were given, by field. Raises `SettingsError` with a
    sentence that names the place, the value and what is allowed.
    """
    environment = os.environ if environment is None else environment
    directory = Path.cwd() if directory is None else directory
    given = _from_environment(environment, directory) | _from_flags(flags, directory)
    given = _from_file(settings, given, directory) | given
    values = {}
    for option, default in options_of(settings):
        if option.field in given:
            values[option.field] = _read(option, given[option.field])
        elif default is dataclasses.MISSING:
            raise SettingsError(_missing(option))
        else:
            # A default folder is relative to the same place as one that was given.
            values[option.field] = directory / default if isinstance(default, Path) else default
    return settings(**values)


def to_environment(settings: UpSettings, child: type[GatewaySettings | RunnerSettings]) -> dict[str, str]:
    """The variables that hand `settings` to a child, whatever its own environment or file say."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {
        OPTIONS[field.name].variable: OPTIONS[field.name].kind.write(values[field.name])
        for field in dataclasses.fields(child)
        if values.get(field.name) is not None
    }


def settings_options(settings: type[_Settings]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a click command the options of `settings`; it is called with the loaded object first.

    A bad value ends the command with one sentence and exit status 1.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**parameters: Any) -> Any:
            flags = {option.field: parameters.pop(option.field) for option, _ in options_of(settings)}
            try:
                loaded = load(settings, {field: value for field, value in flags.items() if value is not None})
            except SettingsError as error:
                raise click.ClickException(str(error)) from None
            return function(loaded, **parameters)

        decorated: Callable[..., Any] = command
        for option, default in reversed(options_of(settings)):
            decorated = _click_option(option, default)(decorated)
        return decorated

    return decorate


def _click_option(option: Option, default: object) -> Callable[..., Any]:
    flags = [option.flag, option.field]
    metavar: str | None = option.kind.metavar
    if not option.kind.metavar:
        flags[0] = f"{option.flag}/--no-{option.name}"
        metavar = None
    text = option.help
    if default not in (None, (), dataclasses.MISSING):
        text = f"{text}  [default: {option.kind.write(default)}]"
    # What click would check, it would report in its own words and with another exit status.
    return click.option(
        *flags, type=None if metavar is None else str, default=None, metavar=metavar, help=text
    )


def _from_flags(flags: Mapping[str, object], directory: Path) -> dict[str, _Given]:
    return {
        field: _Given(value=value, place=OPTIONS[field].flag, base=directory)
        for field, value in flags.items()
    }


def _from_environment(environment: Mapping[str, str], directory: Path) -> dict[str, _Given]:
    return {
        option.field: _Given(value=environment[option.variable], place=option.variable, base=directory)
        for option in OPTIONS.values()
        if environment.get(option.variable, "") or (option.kind.empty and option.variable in environment)
    }


def _from_file(settings: type[_Settings], given: Mapping[str, _Given], directory: Path) -> dict[str, _Given]:
    functions = None
    if any(field.name == "functions" for field in dataclasses.fields(settings)) and "functions" in given:
        functions = _read(OPTIONS["functions"], given["functions"])
    path = find_project_file(directory, functions)
    return {} if path is None else dict(_file_values(read_project_file(path)))


def _file_values(file: ProjectFile) -> Iterator[tuple[str, _Given]]:
    base = file.path.parent
    # Netlify's own keys first: what `[quarterhour]` says comes later and wins.
    for table, key in (("build", "functions"), ("functions", "directory")):
        value = file.table(table).get(key)
        # `[functions.directory]` is the table of a function that is called "directory".
        if value is not None and not isinstance(value, dict):
            yield "functions", _Given(value=value, place=f"{file.path}: [{table}] {key}", base=base)
    fields = {option.name: option.field for option in OPTIONS.values()}
    for key, value in file.table("quarterhour").items():
        place = f"{file.path}: [quarterhour] {key}"
        if key not in fields:
            raise SettingsError(_unknown(place, key, fields))
        yield fields[key], _Given(value=value, place=place, base=base)


def _read(option: Option, given: _Given) -> Any:
    try:
        return option.kind.read(given.value, given.base)
    except (ValueError, OverflowError) as error:
        if option.kind.hidden:
            message = f"{given.place} {error}."
            raise SettingsError(message) from None
        shown = re.sub(r"//[^/@]*@", "//***@", repr(given.value))  # an address may hold a password
        if len(shown) > _SHOWN_MAX:
            shown = f"{shown[:_SHOWN_MAX]}…"
        text = f"{given.place} is {shown}, but must be {option.kind.allowed}."
        raise SettingsError(text) from None


def _missing(option: Option) -> str:
    return f"{option.flag} is missing: give it, or the variable {option.variable}. {option.help}"


def _unknown(place: str, key: str, known: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
    hint = f"do you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}."
    return f"{place} is no setting; {hint}"
