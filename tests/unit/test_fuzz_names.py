"""What becomes a subject, a path or a label of something else: no text gets through that could mean more."""

import re
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.request import function_name
from quarterhour.broker.names import function_token, invocation_token, runner_token
from quarterhour.function import PREFIX
from quarterhour.ids import is_invocation_id, new_process_name
from quarterhour.options import label
from tests.fuzzing import BUDGET

# In a NATS subject a dot divides, * and > match, and white space or a control character ends a line.
PLAIN = set(string.ascii_letters + string.digits + "_-")
NASTY = [
    "a.b",
    ">",
    "*",
    "a.>",
    "",
    " ",
    "a b",
    "a\n",
    "a\r\nPUB x 1\r\n",
    "\0",
    "\uff41",
    "a\u2028",
    "é",
    "$JS",
    "a/../b",
    "a%2eb",
]
TEXTS = st.text() | st.text(alphabet=st.sampled_from("aZ09_-.*> \n\r\t\0%/é")) | st.sampled_from(NASTY)
TOKENS = [function_token, invocation_token, runner_token, lambda text: str(label().read(text, Path()))]


@pytest.mark.parametrize("token", TOKENS, ids=["function", "invocation", "runner", "namespace"])
@BUDGET
@given(text=TEXTS)
def test_a_token_is_one_plain_word(token: Callable[[str], str], text: str) -> None:
    try:
        found = token(text)
    except ValueError:
        return
    assert found == text
    assert found
    assert set(found) <= PLAIN


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("token", TOKENS, ids=["function", "invocation", "runner", "namespace"])
def test_what_would_mean_more_is_no_token(token: Callable[[str], str], text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any words will do
        token(text)


@BUDGET
@given(
    st.binary()
    | st.lists(st.sampled_from([b"a", b".", b"*", b">", b"/", b"%2e", b"%2f", b"..", b"\r\n", b"\0"])).map(
        b"".join
    )
)
@example(b"/a\n")
@example(b"/a%0a")
def test_a_path_names_a_plain_word_or_nothing(rest: bytes) -> None:
    name = function_name(PREFIX.encode() + rest)
    assert name is None or (0 < len(name) <= 128 and set(name) <= PLAIN)


@BUDGET
@given(TEXTS)
def test_an_invocation_id_is_a_uuid(text: str) -> None:
    assert not is_invocation_id(text) or re.fullmatch(r"[0-9a-f-]{36}", text)


@pytest.mark.parametrize("host", ["a.b", ">", "*", "", "ü", "a" * 300, "a\nb"])
def test_a_process_has_a_plain_name_whatever_its_host(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert set(runner_token(new_process_name())) <= PLAIN
