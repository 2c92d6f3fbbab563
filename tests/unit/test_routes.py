"""Routes of functions' own: what a pattern matches, and which of several functions gets a request."""

import itertools
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.directory import Functions
from gateway.routes import Routes, at_default_route
from quarterhour.function import Manifest
from quarterhour.retry import RetryPolicy
from quarterhour.route import MATCHED_LENGTH_MAX, Pattern, example, is_gateways

MATCHES: list[tuple[str, str, dict[str, str] | None]] = [
    ("/users/:id", "/users/7", {"id": "7"}),
    ("/users/:id", "/users/7/", {"id": "7"}),
    ("/users/:id", "/users/7//", None),
    ("/users/:id", "/users/7/x", None),
    ("/users/:id", "/users/", None),
    ("/users/:id", "/users", None),
    ("/users/:id", "/Users/7", None),
    ("/users/:id", "/users/a%20b%2Fc%zz", {"id": "a%20b%2Fc%zz"}),
    ("/users/:id/", "/users/7/", {"id": "7"}),
    ("/users/:id/", "/users/7", None),
    ("/users/:id?", "/users", {}),
    ("/users/:id?", "/users/", {}),
    ("/users/:id?", "/users/7", {"id": "7"}),
    ("/users/:id(\\d+)", "/users/7", {"id": "7"}),
    ("/users/:id(\\d+)", "/users/me", None),
    ("/:a/:b", "/1/2", {"a": "1", "b": "2"}),
    ("/files/*", "/files/a/b", {"0": "a/b"}),
    ("/files/*", "/files/", {"0": ""}),
    ("/files/*", "/files", None),
    ("/*/x/*", "/1/x/2", {"0": "1", "1": "2"}),
    ("/:all+", "/a/b", {"all": "a/b"}),
    ("/{a|b}?", "/", {}),  # no alternatives, but their bar: those are in round brackets
    ("/(en|de)", "/de", {"0": "de"}),
    ("/(en|de)", "/fr", None),
    ("/x{/y}?", "/x", {}),
    ("/x{/y}?", "/x/y", {}),
    ("/:name.json", "/a.json", {"name": "a"}),
    ("/a\\:b", "/a:b", {}),
    ("/", "/", {}),
    ("/a", "/a", {}),
    ("/a", "/a/", {}),
    ("/a", "/a//", None),
    ("/a", "/%61", None),
    ("/a/", "/a/", {}),
    ("/a/", "/a", None),
    ("/é", "/%C3%A9", {}),
    ("/é/:x", "/%C3%A9/1", {"x": "1"}),
    ("/*", "/a/../b", None),
    ("/*", "/a/%2e%2e/b", None),
    ("/*", "/a\\b", None),
    ("/*", "//a", {"0": "/a"}),
    ("/*", "/" + "a" * (MATCHED_LENGTH_MAX - 1), {"0": "a" * (MATCHED_LENGTH_MAX - 1)}),
    ("/*", "/" + "a" * MATCHED_LENGTH_MAX, None),
]


@pytest.mark.parametrize(("text", "path", "params"), MATCHES)
def test_what_a_pattern_matches(text: str, path: str, params: dict[str, str] | None) -> None:
    assert Pattern(text).match(path) == params


SEGMENTS = st.text("abcXYZ019-._~%!$&'()*+,;=:@", min_size=1, max_size=12).filter(
    lambda text: text.lower().replace("%2e", ".") not in {".", ".."}
)


@given(st.lists(SEGMENTS, min_size=1, max_size=4))
def test_the_parts_of_a_path_come_out_as_they_went_in(segments: list[str]) -> None:
    names = [f"n{number}" for number in range(len(segments))]
    pattern = Pattern("".join(f"/:{name}" for name in names))
    assert pattern.match("/" + "/".join(segments)) == dict(zip(names, segments, strict=True))


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), max_size=30))
def test_a_path_is_matched_as_it_stands_or_not_at_all(rest: str) -> None:
    params = Pattern("/*").match(f"/{rest}")
    assert params in (None, {"0": rest})


@pytest.mark.parametrize(
    "text", ["/(a+)+b", "/((?:a|a)*)b", "/(.*)(.*)(.*)(.*)x", "/*/*/*/*/*/b", "/:a*/:b*/x"]
)
def test_no_path_takes_long(text: str) -> None:
    pattern = Pattern(text)
    paths = ["/" + "a" * 8000, "/a" * 4000]
    began = time.process_time()
    assert [pattern.match(path) for path in paths] == [None, None]
    assert time.process_time() - began < 1, "it is linear: milliseconds; one that goes back would take years"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/a", "/a"),
        ("/users/:id", "/users/1"),
        ("/x/:n(\\d+)/*", "/x/1/1"),
        ("/x{/:y}?", "/x"),
        ("/(a|b)", None),
    ],
)
def test_an_example_matches_or_there_is_none(text: str, shown: str | None) -> None:
    assert example(text) == shown


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/functions", "/metrics", "/healthz/x", "/openapi.json"])
def test_the_gateways_own_addresses(path: str) -> None:
    assert is_gateways(path)
    assert not is_gateways(f"/x{path}")
    assert not is_gateways(path[:2])


def function(name: str, *path: str, method: tuple[str, ...] = (), excluded: tuple[str, ...] = ()) -> Manifest:
    return Manifest(
        name=name,
        runtime="python",
        background=False,
        timeout_s=1,
        retry=RetryPolicy(),
        path=path,
        method=method,
        excluded_path=excluded,
    )


def found(routes: Routes, path: str, method: str = "GET") -> Any:
    destination = routes.find(path.encode(), method)
    return destination and (destination.manifest.name, dict(destination.params))


FUNCTIONS = [
    function("a-all", "/*"),
    function("b-user", "/users/:id", "/people/:id"),
    function("c-me", "/users/me", method=("GET",)),
    function("d-set-me", "/users/me", method=("PUT",)),
    function("a-users", "/users/*"),
    function("z-user", "/users/:other"),
    function("posts", "/posts/*", excluded=("/posts/drafts/*", "/posts/secret")),
    function("plain"),
]


@pytest.mark.parametrize(
    ("request_line", "name", "params"),
    [
        ("GET /users/me", "c-me", {}),
        ("GET /users/me/", "c-me", {}),
        ("PUT /users/me", "d-set-me", {}),
        ("POST /users/me", "b-user", {"id": "me"}),
        ("GET /users/7", "b-user", {"id": "7"}),
        ("GET /people/7", "b-user", {"id": "7"}),
        ("GET /users/7/x", "a-users", {"0": "7/x"}),
        ("GET /users", "a-all", {"0": "users"}),
        ("GET /posts/1", "posts", {"0": "1"}),
        ("GET /posts/drafts/1", "a-all", {"0": "posts/drafts/1"}),
        ("GET /posts/secret", "a-all", {"0": "posts/secret"}),
        ("GET /posts/secret/", "a-all", {"0": "posts/secret/"}),
        ("GET /.netlify/plain", "a-all", {"0": ".netlify/plain"}),
    ],
)
def test_the_most_particular_route_gets_the_request_in_whatever_order_they_came(
    request_line: str, name: str, params: dict[str, str]
) -> None:
    method, _, path = request_line.partition(" ")
    for manifests in (FUNCTIONS, FUNCTIONS[::-1]):
        assert found(Routes(manifests), path, method) == (name, params)


def test_what_no_route_is_for_goes_nowhere() -> None:
    routes = Routes([function("user", "/users/:id", method=("GET",))])
    assert found(routes, "/users/7", "GET")
    for path, method in [
        ("/users/7", "HEAD"),
        ("/users/7", "get"),
        ("/user", "GET"),
        ("*", "GET"),
        ("", "GET"),
    ]:
        assert found(routes, path, method) is None
    assert Routes([function("all", "/*")]).find(b"/\xc3\xa9", "GET") is None, "that is no address at all"
    assert not Routes([function("plain")])


def test_the_same_path_twice_is_said() -> None:
    both = "one and two both have the path /x/:id; one gets its requests."
    for manifests in itertools.permutations([function("one", "/x/:id"), function("two", "/x/:id", "/y")]):
        routes = Routes(manifests)
        assert routes.complaints == (both,)
        assert found(routes, "/x/1") == ("one", {"id": "1"})
    apart = [function("one", "/x", method=("GET",)), function("two", "/x", method=("PUT", "POST"))]
    assert Routes(apart).complaints == ()
    assert Routes([*apart, function("zzz", "/x", method=("PUT",))]).complaints == (
        "two and zzz both have the path /x; two gets its requests.",
    )


def test_a_pattern_that_only_its_runner_understands_leaves_out_its_function_alone() -> None:
    for odd in (function("odd", "/a", "/("), function("odd", "/a", excluded=("/(",))):
        routes = Routes([odd, function("fine", "/b")])
        assert found(routes, "/a") is None
        assert found(routes, "/b")
        assert [text.partition(":")[0] for text in routes.complaints] == ["odd is not served"]


def test_the_default_route_is_there_unless_a_path_replaces_it() -> None:
    default = "/.netlify/functions/f"
    plain, get = function("f"), function("f", method=("GET",))
    assert at_default_route(None, "GET") is None
    assert at_default_route(plain, "GET") is plain
    assert [at_default_route(get, method) for method in ("GET", "POST")] == [get, None]
    assert at_default_route(function("f", "/f"), "GET") is None
    both = function("f", "/f", default, method=("GET",))
    assert [at_default_route(both, method) for method in ("GET", "POST")] == [both, None]


def test_the_table_is_made_anew_when_functions_change_and_then_alone() -> None:
    functions = Functions()
    assert not functions.routes
    functions.replace({"f": function("f", "/f")})
    routes = functions.routes
    assert found(routes, "/f")
    functions.replace({"f": function("f", "/f")})
    assert functions.routes is routes
    functions.replace({"f": function("f", "/g")})
    assert (found(functions.routes, "/f"), found(functions.routes, "/g")) == (None, ("f", {}))
    functions.replace({})
    assert not functions.routes
