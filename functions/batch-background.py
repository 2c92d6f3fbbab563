"""Works through many records: cleans up contacts, one by one, and tells in its log how far it is.

curl -i -d '{"records": [{"name": "ada  lovelace", "email": "Ada@Example.org", "phone": "0044 20 794600"}]}' \
     -H content-type:application/json localhost:8888/.netlify/functions/batch-background

With `{}` or {"count": 1000} it makes up its records. What it has done is in .quarterhour/batches/
(BATCHES_DIR: another folder), one line of JSON for each record. To make it yours, replace `clean`.
"""

import json
import os
import re
from collections import Counter

from toolbox.files import place
from toolbox.request import read_fields, require

from quarterhour import RetryAfter

RECORDS_MAX = 100_000
RESERVE_MS = 5_000  # it stops when no more time than this is left; a record must be done in it

EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+")
PHONE = re.compile(r"\+?[0-9]{6,15}")


def handler(event, context):
    records = read_records(event)
    path = place("batches", f"{context.aws_request_id}.jsonl")
    done = read_done(path)  # nothing, unless an earlier attempt did not come to the end
    if done:
        print(f"batch: goes on after the first {len(done)} of {len(records)}")

    with path.open("a", buffering=1) as file:  # each line is written at once, and survives a crash
        for number, record in enumerate(records[len(done) :], start=len(done) + 1):
            if context.get_remaining_time_in_millis() < RESERVE_MS:
                # Better than being killed: it is said how far it came, and the next attempt goes on there.
                raise RetryAfter(1, f"The time is over, {number - 1} of {len(records)} records are done.")
            try:
                line = {"contact": clean(record)}
            except Rejected as reason:  # one bad record must not stop the others
                line = {"rejected": number, "reason": str(reason)}
            file.write(json.dumps(line) + "\n")
            done.append(line)
            if number % max(50, len(records) // 20) == 0:
                print(f"batch: {number} of {len(records)}, {len(rejected(done))} rejected")

    domains = Counter(line["contact"]["email"].partition("@")[2] for line in done if "contact" in line)
    return {
        "file": str(path),
        "records": len(records),
        "accepted": len(done) - len(rejected(done)),
        "rejected": len(rejected(done)),
        "first_rejected": rejected(done)[:10],
        "domains": dict(domains.most_common(5)),
    }


class Rejected(Exception):  # noqa: N818 - it says what is done with the record
    """Why a record cannot be used."""


def clean(record):
    """The contact as it should be, or `Rejected`."""
    expect(isinstance(record, dict), "It is no object.")
    name, email, phone = (record.get(field) or "" for field in ("name", "email", "phone"))
    expect(all(isinstance(value, str) for value in (name, email, phone)), "A field of it is no text.")

    name = " ".join(name.split())
    expect(0 < len(name) <= 100, "The name is missing, or longer than 100 characters.")
    if name.islower() or name.isupper():
        name = name.title()

    email = email.strip().lower()
    expect(len(email) <= 254 and EMAIL.fullmatch(email), "The e-mail address is none.")

    phone = re.sub(r"[\s()/.-]", "", phone)
    phone = re.sub(r"^00", "+", phone)
    expect(not phone or PHONE.fullmatch(phone), "The phone number is none.")
    return {"name": name, "email": email, "phone": phone or None}


def expect(fact, reason):
    if not fact:
        raise Rejected(reason)


def rejected(done):
    return [line for line in done if "rejected" in line]


def read_done(path):
    """The lines that an earlier attempt has written, without one that it did not finish."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def read_records(event):
    fields = read_fields(event, known=("records", "count"))
    require(len(fields) < 2, "Give 'records' or 'count', not both.")
    count = fields.get("count", 200)
    require(
        type(count) is int and 0 <= count <= RECORDS_MAX,
        f"'count' must be a whole number up to {RECORDS_MAX}.",
    )
    records = fields["records"] if "records" in fields else sample(count)
    require(
        isinstance(records, list) and len(records) <= RECORDS_MAX,
        f"'records' must be a list of at most {RECORDS_MAX} contacts.",
    )
    return records


def sample(count):
    """Contacts as people type them in; some of them cannot be used."""
    names = ("ada  lovelace", "GRACE HOPPER", " Mary Jackson", "Radia Perlman", "hedy lamarr ")
    records = []
    for number in range(count):
        name = names[number % len(names)]
        email = f"{name.split()[0]}{number}@Example.{('org', 'com', 'net')[number % 3]}"
        records.append({"name": name, "email": email, "phone": f"0044 20 {79_460_000 + number}"})
    for number in range(17, count, 40):
        records[number]["email"] = "at home"
    for number in range(31, count, 60):
        records[number]["phone"] = "ask Bob"
    return records
