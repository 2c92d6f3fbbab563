"""The guestbook as CSV, sent row by row while it is read: neither side ever has all of it in memory.

curl localhost:8888/.netlify/functions/export-guestbook
curl 'localhost:8888/.netlify/functions/export-guestbook?rows=100000' | tail -1

With `rows` it makes up that many instead. The entries are those of `guestbook`.
"""

import csv
import io
import itertools

from toolbox.guestbook import Entry, open_guestbook

ROWS_MAX = 200_000
PIECE_CHARACTERS = 8_192  # a piece for each row would be many small ones
COLUMNS = ("id", "written_at", "name", "text")


def handler(event, context):
    rows = event["queryStringParameters"].get("rows")
    if rows is not None and not (rows.isascii() and rows.isdigit() and int(rows[:10]) <= ROWS_MAX):
        return {"statusCode": 400, "body": f"'rows' must be a whole number up to {ROWS_MAX}."}
    return {
        "statusCode": 200,
        "headers": {
            "content-type": "text/csv; charset=utf-8",
            "content-disposition": 'attachment; filename="guestbook.csv"',
        },
        # A generator as body: what it yields is on its way at once, and it goes on when there is room.
        "body": pieces(written() if rows is None else made_up(int(rows))),
    }


def pieces(entries):
    """The text of the CSV, some rows at a time."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for count in itertools.count():
        if (entry := next(entries, None)) is None:
            print(f"{count} rows")
            yield text.getvalue()
            return
        table.writerow([entry.id, entry.written_at, harmless(entry.name), harmless(entry.text)])
        if text.tell() >= PIECE_CHARACTERS:
            yield text.getvalue()
            text.seek(0)
            text.truncate()


def written():
    with open_guestbook() as guestbook:
        yield from guestbook.all()


def made_up(count):
    for number in range(1, count + 1):
        moment = f"2026-01-{number % 28 + 1:02}T12:00:00Z"
        yield Entry(id=number, written_at=moment, name=f"Guest {number}", text="I was here, too.")


def harmless(text):
    """What a spreadsheet would run as a formula, made into what it shows."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
