"""The one table of options: name, kind and help of everything that a process can be told. Pure."""

from collections.abc import Mapping
from typing import Any

from quarterhour.options import (
    Option,
    broker_url,
    choice,
    file,
    folder,
    host,
    interpreter,
    key_lines,
    label,
    networks,
    number,
    origins,
    switch,
    users,
    variables,
    whole,
)

__all__ = ["OPTIONS"]

_DAY_S = 24 * 3600
_STREAM_BYTES_MAX = 1024 * 1024 * 1024
_BODY_BYTES_MAX = 64 * 1024 * 1024  # a worker holds it, and what it makes of it


def _option(field: str, name: str, kind: Any, text: str) -> Option:
    return Option(field=field, name=name, kind=kind, help=text)


_SECONDS = "a number of seconds"
_BYTES = "a number of bytes"

OPTIONS: Mapping[str, Option] = {
    option.field: option
    for option in (
        _option("functions", "functions", folder(), "The folder with your functions."),
        _option("host", "host", host(), "Address to listen on; 0.0.0.0 lets other machines in."),
        _option("port", "port", whole(0, 65_535), "Port to listen on; 0 takes any free one."),
        _option("runners", "runners", whole(1, 64), "How many runner processes to start."),
        _option("slots", "slots", whole(1, 1024), "How many functions a runner runs at a time."),
        _option("data_dir", "data-dir", folder(), "Where everything accepted is kept, over restarts too."),
        _option("broker", "broker", broker_url(), "The NATS to use, e.g. nats://nats.example.org:4222."),
        _option("server", "server", choice("hypercorn", "granian"), "The HTTP server."),
        _option(
            "synchronous_limit_s",
            "synchronous-limit",
            number(0.1, 3600, _SECONDS),
            "Seconds that a synchronous function may run.",
        ),
        _option(
            "background_limit_s",
            "background-limit",
            number(0.1, _DAY_S, _SECONDS),
            "Seconds that a background function may run.",
        ),
        _option(
            "request_bytes_max",
            "request-limit",
            whole(0, _BODY_BYTES_MAX, _BYTES),
            "Bytes that the body of a request may have.",
        ),
        _option(
            "response_bytes_max",
            "response-limit",
            whole(0, _BODY_BYTES_MAX, _BYTES),
            "Bytes that the body of a response may have.",
        ),
        _option(
            "stream_bytes_max",
            "stream-limit",
            whole(0, _STREAM_BYTES_MAX, _BYTES),
            "Bytes that the body of a response may have that is streamed.",
        ),
        _option(
            "body_memory_bytes_max",
            "body-memory",
            whole(1024 * 1024, 1024 * _BODY_BYTES_MAX, _BYTES),
            "Bytes of bodies over 16 KiB that a gateway holds at a time; more are refused with 503.",
        ),
        _option(
            "header_bytes_max",
            "header-limit",
            whole(1024, 262_144, _BYTES),
            "Bytes that the headers of a request may have.",
        ),
        _option(
            "requests_max",
            "requests-limit",
            whole(1, 100_000),
            "How many requests to functions a gateway works on at a time; more are refused with 503.",
        ),
        _option(
            "lateness_s",
            "lateness-limit",
            number(0.001, 60, _SECONDS),
            "Seconds that a gateway may be late; while it is later, some requests are refused with 503.",
        ),
        _option(
            "waiting_max",
            "waiting-limit",
            whole(1, 10_000_000),
            "How many invocations of one background function may wait, delayed ones among them; "
            "more are refused with 429.",
        ),
        _option(
            "waiting_age_s",
            "waiting-age-limit",
            number(1, 30 * _DAY_S, _SECONDS),
            "Seconds that an invocation may wait before it is set aside as expired.",
        ),
        _option(
            "function_environment",
            "function-environment",
            variables(),
            "Variables of this environment that functions may see too.",
        ),
        _option(
            "function_python",
            "function-python",
            interpreter(),
            "The Python that runs the functions, e.g. .venv/bin/python.",
        ),
        _option(
            "function_user",
            "function-user",
            users(),
            "The user that functions run as, where the runner is root; of a range each worker has its own.",
        ),
        _option(
            "cache_dir", "cache-dir", folder(), "Where what functions list as dependencies is installed."
        ),
        _option(
            "expose_errors",
            "expose-errors",
            switch(),
            "Whether the answer of a failing function shows where in its code it failed.",
        ),
        _option(
            "call_scheduled",
            "call-scheduled",
            switch(),
            "Whether a function with a schedule can be called by its address too, to try it out.",
        ),
        _option(
            "trusted_proxies",
            "trusted-proxies",
            networks(),
            "Proxies whose X-Forwarded-For is believed.",
        ),
        _option(
            "api_keys_file",
            "api-keys-file",
            file(),
            "File with a line for each API key (`quarterhour key new`); it is read again when it changes.",
        ),
        _option(
            "api_keys",
            "api-keys",
            key_lines(),
            "Further API keys, as the lines of such a file; only hashes of keys, never a key.",
        ),
        _option(
            "allow_anonymous",
            "allow-anonymous",
            switch(),
            "Whether everybody who reaches the gateway may do everything, where there are no API keys.",
        ),
        _option(
            "cors_origins",
            "cors-origins",
            origins(),
            "Web pages of other origins that may call functions and the API; * for all.",
        ),
        _option(
            "tls_cert",
            "tls-cert",
            file(),
            "Certificate, or chain of them, in PEM; the gateway then speaks HTTPS only.",
        ),
        _option("tls_key", "tls-key", file(), "Key of the certificate in PEM."),
        _option(
            "drain_s",
            "drain",
            number(0, _DAY_S, _SECONDS),
            "Seconds that running functions have to finish when the process is stopped.",
        ),
        _option(
            "grace_s",
            "grace",
            number(0, 3600, _SECONDS),
            "Seconds that a gateway which is stopped still takes requests, so that proxies can leave it.",
        ),
        _option(
            "withdraw_missing",
            "withdraw-missing",
            switch(),
            "This folder holds all functions there are: withdraw every announced one that is not in it.",
        ),
        _option(
            "watch",
            "watch",
            switch(),
            "Whether what is saved in the functions folder is served at once.",
        ),
        _option(
            "lease_s",
            "lease",
            number(2, 300, _SECONDS),
            "Seconds after which the work of a runner that is gone is given to another.",
        ),
        _option("namespace", "namespace", label(), "Prefix of everything kept in the broker."),
        _option("metrics_host", "metrics-host", host(), "Address on which runners show their metrics."),
        _option(
            "metrics_port",
            "metrics-port",
            whole(1, 65_535),
            "Port of a runner's metrics; the first free one from there up is taken.",
        ),
        _option(
            "advertise",
            "advertise",
            host(),
            "Host under which Prometheus reaches a runner's metrics; if not given, the metrics host, "
            "or this machine's name where that is all addresses.",
        ),
        _option(
            "log_format",
            "log-format",
            choice("auto", "console", "json"),
            "Readable lines or JSON; auto is readable on a terminal.",
        ),
    )
}
