"""What a function may say about itself: every key, every bad value, and who is heard first."""

from typing import Any

import pytest

from quarterhour.function import Manifest
from quarterhour.retry import RetryPolicy
from quarterhour.schedule import ALIASES
from runner.manifest import KEYS, Limits, Reading, Said, read_manifest

LIMITS = Limits(synchronous_s=60, background_s=900)
SOURCE = "functions/hello.py: config"
TOML = 'quarterhour.toml: [functions."hello"]'


def read(
    source: dict[Any, Any] | None = None, toml: dict[str, Any] | None = None, *, name: str = "hello"
) -> Reading:
    said = []
    if source is not None:
        said.append(Said(place=SOURCE, values=source, in_source=True))
    if toml is not None:
        said.append(Said(place=TOML, values=toml, in_source=False))
    return read_manifest(name, "python", said, LIMITS)


def test_a_function_that_says_nothing_has_the_defaults() -> None:
    assert read().manifest == Manifest(
        name="hello", runtime="python", background=False, timeout_s=60, retry=RetryPolicy(retries=0)
    )
    background = read(name="hello-background").manifest
    assert (background.timeout_s, background.retry) == (900, RetryPolicy(retries=2))


@pytest.mark.parametrize(
    ("name", "background"),
    [
        ("x-background", True),
        ("-background", True),
        ("background", False),
        ("x-Background", False),
        ("x_background", False),
        ("x-background-y", False),
    ],
)
def test_the_suffix(name: str, background: bool) -> None:
    assert read(name=name).manifest.background is background


@pytest.mark.parametrize(
    ("source", "toml", "name", "background"),
    [
        ({"background": False}, {"background": True}, "x-background", False),
        ({"background": True}, {"background": False}, "x", True),
        ({}, {"background": False}, "x-background", False),
        ({}, {"background": True}, "x", True),
        (None, {}, "x-background", True),
    ],
)
def test_source_then_toml_then_suffix(
    source: dict[str, Any] | None, toml: dict[str, Any], name: str, background: bool
) -> None:
    assert read(source, toml, name=name).manifest.background is background


def test_each_key_is_looked_up_on_its_own() -> None:
    manifest = read({"timeout": 5}, {"timeout": 6, "retries": 1}).manifest
    assert (manifest.timeout_s, manifest.retry.retries) == (5, 1)


@pytest.mark.parametrize(
    ("key", "value", "field", "becomes"),
    [
        ("schedule", "*/5 * * * *", "schedule", "*/5 * * * *"),
        ("schedule", "0 9 * jan-mar mon,FRI", "schedule", "0 9 * jan-mar mon,FRI"),
        ("schedule", "0 0 29 2 *", "schedule", "0 0 29 2 *"),
        ("schedule", "*/2 * * * * *", "schedule", "*/2 * * * * *"),
        ("path", "/a", "path", ("/a",)),
        ("path", ["/a/:id", "/b/*"], "path", ("/a/:id", "/b/*")),
        ("path", ["/a", "/a"], "path", ("/a",)),
        ("path", "/.netlify/functions/hello", "path", ("/.netlify/functions/hello",)),
        (
            "path",
            ["/v1x", "/metrics:x", "/:v1", "/*", "/.netlify/*"],
            "path",
            ("/v1x", "/metrics:x", "/:v1", "/*", "/.netlify/*"),
        ),
        ("path", "/{a|b}?", "path", ("/{a|b}?",)),
        ("path", "/x/:n(\\d+)/:rest*", "path", ("/x/:n(\\d+)/:rest*",)),
        ("path", "/" + "a" * 1023, "path", ("/" + "a" * 1023,)),
        ("excluded_path", "/a", "excluded_path", ("/a",)),
        ("excluded_path", ["/a", "/v1/*"], "excluded_path", ("/a", "/v1/*")),
        ("method", "get", "method", ("GET",)),
        ("method", ["GET", "X-Other"], "method", ("GET", "X-OTHER")),
        ("timeout", 0.5, "timeout_s", 0.5),
        ("timeout", 60, "timeout_s", 60.0),
        ("concurrency", 1, "concurrency", 1),
        ("concurrency", 10_000, "concurrency", 10_000),
        ("memory", 64, "memory_mib", 64),
        ("memory", 1_048_576, "memory_mib", 1_048_576),
        ("returned_status", "ignore", "returned_status", "ignore"),
        ("returned_status", "fail", "returned_status", "fail"),
        ("retries", 0, "retry", RetryPolicy(retries=0)),
        ("retries", 100, "retry", RetryPolicy(retries=100)),
        ("retry_delay", 5, "retry", RetryPolicy(retries=0, delays_s=(5.0,))),
        ("retry_delay", [0, 1.5, 86_400], "retry", RetryPolicy(retries=0, delays_s=(0.0, 1.5, 86_400.0))),
        ("retry_delay", (1,), "retry", RetryPolicy(retries=0, delays_s=(1.0,))),
    ],
)
def test_good_values(key: str, value: object, field: str, becomes: object) -> None:
    for reading in (read({key: value}), read(toml={key: value})):
        assert reading.manifest.error is None
        assert getattr(reading.manifest, field) == becomes
        assert len(reading.warnings) == (key == "excluded_path")


@pytest.mark.parametrize("word", ALIASES)
def test_the_words_for_schedules(word: str) -> None:
    assert read({"schedule": word}).manifest.schedule == word


HUGE = 16**4000  # more digits than Python will write down

NO_PATTERNS = [
    "*",
    "/(",
    "/:",
    "/:a/:a",
    "/{a",
    "/a+",
    "/a#b",
    "/(?=a)",
    "/((a))",
    "/\ud800",
    "/" + "a" * 1024,
    ["/a"] * 101,
]

BAD: dict[str, list[Any]] = {
    "background": ["true", 1, 0, None, []],
    "schedule": [
        "",
        "hourly",
        "@reboot",
        "@HOURLY",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "0 0 31 2 *",
        "a * * * *",
        "-1 * * * *",
        "* * * * 1#6",
        "1" * 5000 + " * * * *",
        "0," * 200 + "0 * * * *",
        5,
        True,
        None,
        ["@daily"],
    ],
    "path": ["", "a", "/a b", "/a?b", "/a\n", 5, None, [], ["/a", "b"], ["/a", 5], {"/a": 1}, *NO_PATTERNS],
    "excluded_path": ["", "a", "/a b", 5, None, [], ["/a", 5], *NO_PATTERNS],
    "method": ["", "GET POST", "GET\r\n", 5, None, [], ["GET", 5], ["GET", ""]],
    "timeout": [0, -1, "60", None, True, [60], float("inf"), float("nan"), HUGE],
    "retries": [-1, 101, 1.0, 2.5, "2", True, None, [1]],
    "retry_delay": [-1, 86_401, "60", None, True, [], [60, "120"], [60, -1], [1] * 101, float("nan")],
    "concurrency": [0, -1, 10_001, 1.5, "1", True, None],
    "memory": [63, 0, -1, 1_048_577, 512.0, "512", True, None],
    "returned_status": ["", "Fail", True, None, 500, ["fail"], {}],
}


CASES = [
    pytest.param(key, value, id=f"{key}-{number}")  # pytest cannot write down the huge one
    for key, values in BAD.items()
    for number, value in enumerate(values)
]


@pytest.mark.parametrize(("key", "value"), CASES)
def test_a_bad_value_names_file_key_value_and_what_is_allowed(key: str, value: object) -> None:
    for place, reading in ((SOURCE, read({key: value})), (TOML, read(toml={key: value}))):
        error = reading.manifest.error
        assert error is not None
        assert error.startswith(f"{place}: {key} is ")
        assert error.endswith(f"must be {KEYS[key].allowed}.")
        shown = "a huge number" if value == HUGE else ascii(value)[:70]
        assert shown in error
        assert len(error) < 400


TAKEN = [
    *(
        "/v1",
        "/v1/",
        "/v1/users",
        "/v1/:id",
        "/v1/*",
        "/healthz",
        "/readyz",
        "/metrics",
        "/console/x",
        "/openapi.json",
    ),
    *(
        "/.netlify/functions",
        "/.netlify/functions/other",
        "/.netlify/functions/hello/x",
        "/.netlify/functions/:name",
    ),
    *("/x/../v1/users", "/%2e/v1/users"),
]


@pytest.mark.parametrize("path", TAKEN)
def test_a_path_of_the_gateways_own_is_an_error_and_the_default_route_stays(path: str) -> None:
    manifest = read({"path": ["/fine", path]}).manifest
    assert manifest.error is not None
    assert manifest.error.startswith(
        f"{SOURCE}: path is {path!r}, but must be none of the gateway's own addresses"
    )
    assert manifest.path == ()


def test_netlifys_name_of_a_key_is_known_in_toml_alone() -> None:
    manifest = read(toml={"path": "/a/*", "excludedPath": "/a/b"}).manifest
    assert (manifest.error, manifest.excluded_path) == (None, ("/a/b",))
    assert "excludedPath is 'a', but must be a path" in (
        read(toml={"excludedPath": "a"}).manifest.error or ""
    )
    assert "'excludedPath' is no key" in (read({"excludedPath": "/a"}).manifest.error or "")


def test_an_excluded_path_without_a_path_is_warned_about() -> None:
    assert read({"path": "/a/*", "excluded_path": "/a/b"}).warnings == ()
    assert read({"excluded_path": "/a/b"}).warnings == (
        f"{SOURCE}: excluded_path does nothing without a path.",
    )


def test_every_key_has_bad_values() -> None:
    assert {*BAD, "environment"} == set(KEYS)


def test_all_that_is_wrong_is_said_and_the_rest_holds() -> None:
    manifest = read({"timeout": "soon", "retries": -1, "background": True, "memory": 100}).manifest
    assert manifest.error is not None
    assert "timeout is 'soon'" in manifest.error
    assert "retries is -1" in manifest.error
    assert (manifest.background, manifest.memory_mib, manifest.timeout_s) == (True, 100, 900)


@pytest.mark.parametrize("key", ["retires", "returnedStatus", "", 5, None, ("a",)])
def test_an_unknown_key_is_an_error_that_lists_the_known_ones(key: object) -> None:
    error = read({key: 1}).manifest.error
    assert error == f"{SOURCE}: {key!a} is no key; known are {', '.join(KEYS)}."


def test_a_wrong_value_in_toml_counts_even_if_the_source_overrides_it() -> None:
    error = read({"timeout": 5}, {"timeout": "soon"}).manifest.error
    assert error is not None
    assert error.startswith(TOML)


@pytest.mark.parametrize(
    ("name", "timeout", "limit", "option"),
    [("hello", 61, 60, "--synchronous-limit"), ("hello-background", 901, 900, "--background-limit")],
)
def test_a_timeout_can_lower_the_limit_not_raise_it(name: str, timeout: int, limit: int, option: str) -> None:
    reading = read({"timeout": timeout}, name=name)
    assert reading.manifest.timeout_s == limit
    assert reading.manifest.error is None
    assert reading.warnings == (
        f"{SOURCE}: timeout is {timeout}, more than {option}, so that {limit} seconds apply.",
    )


def test_environment_is_for_toml_only() -> None:
    reading = read(toml={"environment": {"B": "2", "A": ""}})
    assert reading.environment == (("A", ""), ("B", "2"))
    assert reading.manifest.error is None
    error = read({"environment": {"A": "1"}}).manifest.error
    assert error == f"{SOURCE}: environment can be set in quarterhour.toml or netlify.toml only."


@pytest.mark.parametrize(
    "table", [{"A": 1}, {"A B": "1"}, {"": "1"}, {"1A": "1"}, {"A": "1\0"}, {"A": ["1"]}, {"A=B": "1"}]
)
def test_a_bad_variable_is_named_and_its_value_kept_secret(table: dict[str, object]) -> None:
    reading = read(toml={"environment": {"GOOD": "secret", **table}})
    error = reading.manifest.error
    assert error is not None
    assert f"environment, with its variable {next(iter(table))!r}, must be a table of variables" in error
    assert "secret" not in error
    assert reading.environment == ()


def test_an_environment_that_is_no_table() -> None:
    assert "environment is 'A=1', but must be a table" in (
        read(toml={"environment": "A=1"}).manifest.error or ""
    )


def test_what_is_known_to_be_wrong_comes_first() -> None:
    said = [Said(place=TOML, values={"retries": -1, "background": True}, in_source=False)]
    manifest = read_manifest("hello", "python", said, LIMITS, error="It is broken.").manifest
    assert manifest.error is not None
    assert manifest.error.startswith("It is broken. quarterhour.toml")
    assert manifest.background


def test_a_manifest_survives_its_announcement() -> None:
    manifest = read(
        {"path": "/a", "excluded_path": "/b", "method": "GET", "retry_delay": 1, "schedule": "@daily"}
    ).manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
