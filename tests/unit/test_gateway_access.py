"""Who may do what, and which web pages may ask for it."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.access import EVERYBODY, Access, Caller, cross_site, need_at, refusal, unknown_host
from gateway.keyring import Keyring, open_keyring
from gateway.problems import Code, Problem
from gateway.request import read_head
from quarterhour.keys import GRANTS_MAX, Role, digest_of, line_of, parse_lines
from quarterhour.settings import GatewaySettings

KEY = b"qh_one"


def scope(method: str = "GET", path: str = "/v1/functions", **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": pairs}


def hashed(key: bytes, what: str) -> str:
    return f"sha256:{digest_of(key).hex()} {what}"


def keyring(*lines: str) -> Keyring:
    return Keyring(parse_lines(lines), None, ())


def code(problem: Problem | Caller | None) -> Code | None:
    return problem.code if isinstance(problem, Problem) else None


# Who somebody is


def test_a_caller_is_known_by_the_key_alone() -> None:
    ring = keyring(
        hashed(KEY, "invoke a"), hashed(KEY, "read"), hashed(b"qh_two", "admin"), "anonymous invoke b"
    )
    everybody = parse_lines(["anonymous invoke b"])
    ours = parse_lines([hashed(KEY, "invoke a"), hashed(KEY, "read")])
    assert ring.caller([KEY]) == Caller(grants=(*ours, *everybody), known=True)
    nobody = Caller(grants=(), known=False)
    assert ring.caller([b"qh_on"]) == ring.caller([b""]) == ring.caller([b"qh_three"]) == nobody
    assert ring.caller([KEY, b"qh_two"]) == nobody
    assert ring.caller([]) == Caller(grants=everybody, known=False)


def test_each_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return known == given

    monkeypatch.setattr("gateway.keyring.hmac.compare_digest", compare)
    others = [secrets.token_bytes(8) for _ in range(5)]
    ring = keyring(*(hashed(key, "read") for key in (KEY, *others)))
    assert ring.caller([KEY]).known
    assert compared == [digest_of(key) for key in (KEY, *others)]  # to the last, though it is the first


# Where a key is in a request


@pytest.mark.parametrize(
    ("headers", "keys", "left"),
    [
        ({"authorization": "Bearer qh_one"}, (b"qh_one",), []),
        ({"authorization": "bearer  qh_one "}, (b"qh_one",), []),
        ({"authorization": "qh_one"}, (b"qh_one",), []),
        ({"x_api_key": "qh_one"}, (b"qh_one",), []),
        ({"x_api_key": "qh_one", "authorization": "Bearer qh_one"}, (b"qh_one",), []),
        ({"x_api_key": "qh_one", "authorization": "Bearer qh_two"}, (b"qh_one", b"qh_two"), []),
        ({"x_api_key": "qh_one", "authorization": "Bearer ey.J"}, (b"qh_one",), ["authorization"]),
        ({"authorization": "Basic cWhfb25l"}, (), ["authorization"]),
        ({"x_api_key": "theirs"}, (), ["x-api-key"]),
        ({"cookie": "qh_one"}, (), ["cookie"]),
    ],
)
def test_a_key_is_taken_out_of_the_request_and_other_credentials_are_not(
    headers: dict[str, str], keys: tuple[bytes, ...], left: list[str]
) -> None:
    head = read_head(scope(**headers))
    assert (head.keys, [name for name, _ in head.pairs]) == (keys, left)


# What is needed where


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("GET", "/openapi.json", None),
        ("GET", "/healthz/x", (Role.READ, False)),
        ("GET", "/v1/functions", (Role.READ, False)),
        ("HEAD", "/v1/invocations/7", (Role.READ, False)),
        ("GET", "/v1/runners/targets", (Role.READ, True)),
        ("GET", "/metrics", (Role.READ, True)),
        ("GET", "/console", (Role.READ, False)),
        ("DELETE", "/v1/invocations/7", (Role.ADMIN, False)),
        ("POST", "/v1/dead-letters/redrive", (Role.ADMIN, False)),
        ("PROPFIND", "/console", (Role.ADMIN, False)),
        ("GET", "/", (Role.INVOKE, True)),
        ("GET", "/v1x", (Role.INVOKE, True)),
        ("GET", "//v1/functions", (Role.INVOKE, True)),
    ],
)
def test_what_a_path_needs(method: str, path: str, expected: tuple[Role, bool] | None) -> None:
    need = need_at(path, method)
    assert (None if need is None else (need.role, need.all)) == expected


# (what the key allows, or None for no key) x request -> what the answer is
CASES = [
    ("invoke", "hello", None),
    ("invoke he*", "hello", None),
    ("invoke he*", "unknown", Code.FORBIDDEN),
    ("read", "hello", Code.FORBIDDEN),
    ("admin", "hello", None),
    (None, "hello", Code.UNAUTHORIZED),
    (None, "open-one", None),
    ("read", "open-one", None),
]


@pytest.mark.parametrize(("allowed", "function", "expected"), CASES)
def test_who_may_invoke_a_function(allowed: str | None, function: str, expected: Code | None) -> None:
    lines = ["anonymous invoke open-*"] + ([hashed(KEY, allowed)] if allowed else [])
    access = Access(keyring(*lines), GatewaySettings(broker=""))
    head = read_head(scope(**({} if allowed is None else {"x_api_key": KEY.decode()})))
    assert code(access.to_function(head, function)) == expected
    head = read_head(scope(x_api_key="qh_wrong"))
    assert code(access.to_function(head, "open-one")) == Code.UNAUTHORIZED


@pytest.mark.parametrize(
    ("allowed", "method", "path", "expected"),
    [
        ("read", "GET", "/v1/functions", None),
        ("read a-*", "GET", "/v1/functions", None),
        ("read a-*", "GET", "/metrics", Code.FORBIDDEN),
        ("read a-*", "GET", "/v1/runners/targets", Code.FORBIDDEN),
        ("read *", "GET", "/metrics", None),
        ("admin", "GET", "/metrics", None),
        ("invoke", "GET", "/v1/functions", Code.FORBIDDEN),
        ("read,invoke", "DELETE", "/v1/invocations/7", Code.FORBIDDEN),
        ("admin a-*", "DELETE", "/v1/invocations/7", None),
        ("invoke", "GET", "/nothing", None),
        ("invoke a-*", "GET", "/nothing", Code.FORBIDDEN),
        ("read", "GET", "/nothing", Code.FORBIDDEN),
    ],
)
def test_who_may_do_the_rest(allowed: str, method: str, path: str, expected: Code | None) -> None:
    access = Access(keyring(hashed(KEY, allowed)), GatewaySettings(broker=""))
    request = scope(method, path, x_api_key=KEY.decode())
    assert code(access.to_the_rest(request, read_head(request))) == expected
    for headers in (
        {},
        {"x_api_key": "qh_wrong"},
        {"x_api_key": KEY.decode(), "authorization": "Bearer qh_x"},
    ):
        request = scope(method, path, **headers)
        assert code(access.to_the_rest(request, read_head(request))) == Code.UNAUTHORIZED


def test_without_keys_everybody_may() -> None:
    access = Access(None, GatewaySettings(broker=""))
    for method, path in (("GET", "/metrics"), ("DELETE", "/v1/invocations/7"), ("GET", "/nothing")):
        request = scope(method, path, host="localhost", x_api_key="qh_wrong")
        assert access.to_the_rest(request, read_head(request)) == EVERYBODY
    assert access.to_function(read_head(scope(x_api_key="qh_wrong")), "hello") is None


def test_a_refusal_says_no_more_than_it_must() -> None:
    need = need_at("/v1/functions", "GET")
    assert need is not None
    caller = keyring(hashed(KEY, "invoke secret-*")).caller([KEY])
    problem = refusal(need, caller, presented=1)
    assert problem is not None
    assert problem.detail == "The API key of this request is not one that may read this."
    problem = refusal(need, keyring().caller([KEY]), presented=1)
    assert problem is not None
    assert problem.detail == "The gateway does not know the API key of this request."


def test_who_sends_several_keys_is_told_to_send_one() -> None:
    access = Access(keyring(hashed(KEY, "admin")), GatewaySettings(broker=""))
    request = scope(x_api_key=KEY.decode(), authorization="Bearer qh_two")
    head = read_head(request)
    for problem in (
        access.to_function(head, "hello"),
        access.to_some_function(head),
        access.to_the_rest(request, head),
    ):
        assert isinstance(problem, Problem)
        assert problem.code is Code.UNAUTHORIZED
        assert problem.detail == "This request has 2 different API keys; send one."


def test_the_keys_are_looked_through_once_for_each_request() -> None:
    asked = []

    class Asked(Keyring):
        def caller(self, keys: Sequence[bytes]) -> Caller:
            asked.append(keys)
            return super().caller(keys)

    access = Access(Asked(parse_lines([hashed(KEY, "admin")]), None, ()), GatewaySettings(broker=""))
    request = scope(x_api_key=KEY.decode())
    head = read_head(request)
    assert isinstance(access.to_the_rest(request, head), Caller)
    access.to_function(head, "hello")
    access.to_some_function(head)
    assert asked == [(KEY,)] * 3


# Web pages


@pytest.mark.parametrize(
    ("method", "headers", "allowed"),
    [
        ("POST", {}, True),  # a program
        ("POST", {"sec_fetch_site": "same-origin"}, True),
        ("POST", {"sec_fetch_site": "none"}, True),
        ("POST", {"sec_fetch_site": "same-site"}, False),
        ("POST", {"sec_fetch_site": "cross-site"}, False),
        ("DELETE", {"sec_fetch_site": "cross-site"}, False),
        ("POST", {"sec_fetch_site": "anything"}, False),
        ("POST", {"sec_fetch_site": "same-origin", "origin": "https://evil.example"}, True),
        ("POST", {"sec_fetch_site": "cross-site", "origin": "http://here:8888"}, False),
        ("POST", {"origin": "http://here:8888"}, True),
        ("POST", {"origin": "https://here:8888"}, True),  # behind a proxy that speaks TLS
        ("POST", {"origin": "http://here:8889"}, False),
        ("POST", {"origin": "http://evil.example"}, False),
        ("POST", {"origin": "null"}, False),
        ("POST", {"sec_fetch_site": "cross-site", "origin": "https://app.example"}, True),
        ("POST", {"origin": "https://app.example"}, True),
        ("GET", {"sec_fetch_site": "cross-site"}, True),
        ("HEAD", {"origin": "https://evil.example"}, True),
        ("OPTIONS", {"origin": "https://evil.example"}, True),
    ],
)
def test_a_page_of_another_site_changes_nothing(method: str, headers: dict[str, str], allowed: bool) -> None:
    request = scope(method, host="here:8888", **headers)
    trusted = frozenset({b"https://app.example", b"*"})
    assert code(cross_site(request, trusted)) == (None if allowed else Code.CROSS_SITE)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8888", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("[::1]:8888", True),
        ("my.localhost:8888", True),
        ("box.test:8888", True),
        ("evil.example:8888", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.0.7:8888", False),
        ("[2001:db8::1]:8888", False),
        ("", False),
    ],
)
def test_another_name_that_leads_here_is_refused(host: str, allowed: bool) -> None:
    assert code(unknown_host(scope(host=host), "box.test")) == (None if allowed else Code.UNKNOWN_HOST)


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({}, True),
        ({"allow_anonymous": True}, False),
        ({"host": "0.0.0.0", "allow_anonymous": True}, False),
        ({"api_keys": parse_lines(["anonymous admin"])}, False),
    ],
)
def test_only_a_gateway_of_this_machine_without_keys_asks_for_its_name(
    settings: dict[str, Any], refused: bool
) -> None:
    chosen = GatewaySettings(broker="", **settings)
    access = Access(open_keyring(chosen), chosen)
    for path in ("/v1/functions", "/console", "/metrics"):
        request = scope(path=path, host="evil.example")
        assert code(access.to_the_rest(request, read_head(request))) == (
            Code.UNKNOWN_HOST if refused else None
        )
    for path in ("/healthz", "/nothing"):
        request = scope(path=path, host="evil.example")
        assert code(access.to_the_rest(request, read_head(request))) is None


# The file


def test_the_keys_are_those_of_the_file_and_those_given(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(hashed(KEY, "read"))
    given = parse_lines([hashed(b"qh_two", "invoke")])
    ring = open_keyring(GatewaySettings(broker="", api_keys_file=file, api_keys=given))
    assert ring is not None
    assert [line_of(*ring.caller([key]).grants).split()[1] for key in (KEY, b"qh_two")] == ["read", "invoke"]
    assert open_keyring(GatewaySettings(broker="")) is None


def test_a_file_that_has_come_to_have_too_many_keys_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("anonymous read\n" * GRANTS_MAX)
    in_file = parse_lines(["anonymous invoke"])
    ring = Keyring((), file, in_file)
    assert ring._look(file) == parse_lines(["anonymous read"]) * GRANTS_MAX
    assert Keyring(in_file, file, in_file)._look(file) is None


def test_an_api_key_and_an_idempotency_key_are_two_things() -> None:
    head = read_head(scope(x_api_key="qh_one", idempotency_key="order-7"))
    assert (head.keys, head.idempotency) == ((b"qh_one",), (b"order-7",))
    assert head.pairs == [("idempotency-key", "order-7")]
