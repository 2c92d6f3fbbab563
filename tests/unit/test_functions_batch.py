"""`batch-background`: what becomes of each record, and where it goes on after an attempt that did not end."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from quarterhour import DoNotRetry, RetryAfter
from tests.unit.functions import INVOCATION, call, load

ADA = {"name": "Ada Lovelace", "email": "ada@example.org", "phone": "+442079460018"}


@pytest.fixture(autouse=True)
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for what was done, in a working directory of its own."""
    monkeypatch.delenv("BATCHES_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".quarterhour" / "batches"


def run(body: str | bytes | None) -> Any:
    return call(load("batch-background"), body)


def lines(batches: Path) -> list[dict[str, Any]]:
    text = (batches / f"{INVOCATION}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def one(batches: Path, record: Any) -> dict[str, Any]:
    """What becomes of one record."""
    run(json.dumps({"records": [record]}))
    (line,) = lines(batches)
    (batches / f"{INVOCATION}.jsonl").unlink()
    return line


class Context:
    """A context with time for so many records. `seen`: how far the file was at each look at the clock."""

    aws_request_id = INVOCATION

    def __init__(self, records: int) -> None:
        self.left = records

    def get_remaining_time_in_millis(self) -> int:
        self.left -= 1
        return 60_000 if self.left >= 0 else 1_000


def attempt(count: int, *, records: int) -> Any:
    """An attempt at so many records that has time for some of them."""
    body = json.dumps({"count": count})
    return load("batch-background")({"body": body, "isBase64Encoded": False}, Context(records))


# The whole


@pytest.mark.parametrize("body", [None, "", "{}", b"{}"])
def test_the_sample(batches: Path, capsys: pytest.CaptureFixture[str], body: str | bytes | None) -> None:
    result = run(body)
    assert capsys.readouterr().out.splitlines() == [
        "batch: 50 of 200, 2 rejected",
        "batch: 100 of 200, 5 rejected",
        "batch: 150 of 200, 6 rejected",
        "batch: 200 of 200, 8 rejected",
    ]
    assert result["first_rejected"][:2] == [
        {"rejected": 18, "reason": "The e-mail address is none."},
        {"rejected": 32, "reason": "The phone number is none."},
    ]
    assert result["file"] == f".quarterhour/batches/{INVOCATION}.jsonl"
    assert (result["records"], result["accepted"], result["rejected"]) == (200, 192, 8)
    assert sum(result["domains"].values()) == 192
    assert len(lines(batches)) == 200
    assert lines(batches)[0] == {
        "contact": {"name": "Ada Lovelace", "email": "ada0@example.org", "phone": "+442079460000"}
    }


def test_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHES_DIR", str(tmp_path / "here"))
    assert run('{"count": 1}')["file"] == str(tmp_path / "here" / f"{INVOCATION}.jsonl")


def test_many_records_make_few_lines_in_the_log_and_a_small_result(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run('{"count": 5000}')
    assert len(capsys.readouterr().out.splitlines()) == 20
    assert result["rejected"] > 100
    assert len(result["first_rejected"]) == 10
    assert len(json.dumps(result)) < 5_000


@pytest.mark.parametrize("body", ['{"count": 0}', '{"records": []}'])
def test_nothing_to_do(body: str) -> None:
    result = run(body)
    assert (result["records"], result["accepted"], result["rejected"]) == (0, 0, 0)


# Attempts


def test_it_stops_in_time_and_the_next_attempt_goes_on(
    batches: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RetryAfter, match="The time is over, 60 of 100 records are done") as raised:
        attempt(100, records=60)
    assert raised.value.delay_s == 1
    assert len(lines(batches)) == 60
    capsys.readouterr()
    first = lines(batches)
    result = attempt(100, records=40)  # and for no more: what was done is not done again
    assert capsys.readouterr().out.splitlines() == [
        "batch: goes on after the first 60 of 100",
        "batch: 100 of 100, 5 rejected",
    ]
    assert (result["records"], result["accepted"], result["rejected"]) == (100, 95, 5)
    assert lines(batches)[:60] == first
    in_one_go = run('{"count": 100}')
    assert in_one_go == result


def test_a_line_that_was_not_finished_is_done_again(batches: Path) -> None:
    whole = attempt(10, records=10)
    path = batches / f"{INVOCATION}.jsonl"
    complete = path.read_bytes()
    for length in range(0, len(complete), 7):
        path.write_bytes(complete[:length])
        assert attempt(10, records=10) == whole
        assert path.read_bytes() == complete


def test_each_line_is_there_as_soon_as_it_is_done(batches: Path) -> None:
    path = batches / f"{INVOCATION}.jsonl"
    lengths: list[int] = []

    def look() -> int:
        lengths.append(path.read_bytes().count(b"\n"))
        return 60_000

    context = SimpleNamespace(aws_request_id=INVOCATION, get_remaining_time_in_millis=look)
    load("batch-background")({"body": '{"count": 5}', "isBase64Encoded": False}, context)
    assert lengths == [0, 1, 2, 3, 4]


# One record


@pytest.mark.parametrize(
    ("field", "given", "wanted"),
    [
        ("name", "  ada   LOVELACE ", "ada LOVELACE"),
        ("name", "ada\tlovelace", "Ada Lovelace"),
        ("name", "ADA LOVELACE", "Ada Lovelace"),
        ("name", "Ada McLovelace", "Ada McLovelace"),
        ("name", "李", "李"),
        ("email", " ADA@Example.Org ", "ada@example.org"),
        ("email", "a.d+a@b.example.org", "a.d+a@b.example.org"),
        ("phone", "0044 (20) 7946-0018", "+442079460018"),
        ("phone", "+1 555.010.9999", "+15550109999"),
        ("phone", "020/79460018", "02079460018"),
        ("phone", "", None),
        ("phone", None, None),
    ],
)
def test_a_record_is_cleaned_up(batches: Path, field: str, given: Any, wanted: Any) -> None:
    assert one(batches, {**ADA, field: given}) == {"contact": {**ADA, field: wanted}}


def test_a_record_without_a_phone_and_with_more(batches: Path) -> None:
    record = {"name": ADA["name"], "email": ADA["email"], "shoe size": 38}
    assert one(batches, record) == {"contact": {**ADA, "phone": None}}


NAME, EMAIL, PHONE = (
    "The name is missing, or longer than 100 characters.",
    "The e-mail address is none.",
    "The phone number is none.",
)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (5, "It is no object."),
        (None, "It is no object."),
        ([], "It is no object."),
        ({}, NAME),
        ({**ADA, "name": "  "}, NAME),
        ({**ADA, "name": "x" * 101}, NAME),
        ({**ADA, "name": 5}, "A field of it is no text."),
        ({**ADA, "email": ["x"]}, "A field of it is no text."),
        ({**ADA, "phone": 442079460018}, "A field of it is no text."),
        *(({**ADA, "email": bad}, EMAIL) for bad in ("", "ada", "ada@", "@x.org", "a@b", "a@b.", "a b@c.de")),
        *(
            ({**ADA, "email": bad}, EMAIL)
            for bad in ("a@b@c.de", "a@b..de", "a" * 65 + "@b.de", "a@" + "b." * 130 + "de")
        ),
        *(
            ({**ADA, "phone": bad}, PHONE)
            for bad in ("12345", "1" * 16, "++4420794600", "call me", "٠١٢٣٤٥٦٧")
        ),
    ],
)
def test_a_record_that_cannot_be_used(batches: Path, record: Any, reason: str) -> None:
    assert one(batches, record) == {"rejected": 1, "reason": reason}


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(st.characters(exclude_categories=()))),
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.sampled_from(["name", "email", "phone", "x"]), inner)
    ),
    max_leaves=5,
)


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(records=st.lists(values, max_size=5))
def test_no_record_stops_the_others(batches: Path, records: list[Any]) -> None:
    (batches / f"{INVOCATION}.jsonl").unlink(missing_ok=True)
    result = run(json.dumps({"records": [*records, ADA]}))
    assert result["accepted"] + result["rejected"] == result["records"] == len(records) + 1
    assert lines(batches)[-1] == {"contact": ADA}


# Bad requests


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("no json", "must be JSON"),
        ("[]", "must be a JSON object"),
        ('{"record": []}', "'record' is no field .* known are records, count"),
        ('{"records": [], "count": 5}', "'records' or 'count', not both"),
        ('{"records": {}}', "'records' must be a list"),
        ('{"records": null}', "'records' must be a list"),
        *(
            (f'{{"count": {bad}}}', "'count' must be")
            for bad in ("-1", "100001", "1.5", '"5"', "true", "null")
        ),
    ],
)
def test_a_bad_request_is_not_tried_again(batches: Path, body: str, sentence: str) -> None:
    with pytest.raises(DoNotRetry, match=sentence):
        run(body)
    assert not batches.exists()
