"""From what a source serves, JSON or CSV, to a table of texts and its totals. Pure."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from io import StringIO
from typing import Any

__all__ = ["BadTable", "Table", "check_rows", "make_table", "parse_csv", "parse_json"]

COLUMNS_MAX = 10
CELL_LENGTH_MAX = 100
NUMBER_LENGTH_MAX = 30  # what is longer is no amount of anything


class BadTable(Exception):  # noqa: N818 - it says what the source is
    """What a source holds is no table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as it is shown. `totals`: the sums of columns; `left_out`: how many had no room."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    totals: dict[str, Decimal]
    left_out: int


def parse_json(name: str, text: str) -> list[dict[str, Any]]:
    """The rows in a list of objects, or in the "rows" of an object. Raises `BadTable`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{name} is no JSON: {error}."
        raise BadTable(message) from None
    return check_rows(name, value.get("rows") if isinstance(value, dict) else value)


def parse_csv(name: str, text: str) -> list[dict[str, Any]]:
    """The rows of a CSV file whose first line names the columns. Raises `BadTable`."""
    try:
        return list(csv.DictReader(StringIO(text, newline=""), restkey="(more)"))
    except csv.Error as error:
        message = f"{name} is no CSV: {error}."
        raise BadTable(message) from None


def check_rows(name: str, rows: Any) -> list[dict[str, Any]]:
    """The rows, if they are a list of objects. Raises `BadTable`."""
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    message = f'{name} must be a list of objects such as [{{"day": "Monday", "cups": 41}}].'
    raise BadTable(message)


def make_table(name: str, rows: Sequence[dict[str, Any]], total: Sequence[str] | None = None) -> Table:
    """The table of some rows. `total`: the columns to add up, None for all that hold only numbers.

    Raises `BadTable`: a column that is to be added up is not there, or has something else in it.
    """
    every = list(dict.fromkeys(column for row in rows for column in row))
    columns = every[:COLUMNS_MAX]
    totals = {}
    for column in columns if total is None else total:
        number = _sum(row.get(column) for row in rows)
        if number is not None:
            totals[_cell(column)] = number
        elif total is not None and rows:
            message = f"{name} has no numbers to add up in a column {column!r}."
            raise BadTable(message)
    return Table(
        name=name,
        columns=tuple(_cell(column) for column in columns),
        rows=tuple(tuple(_cell(row.get(column)) for column in columns) for row in rows),
        totals=totals,
        left_out=len(every) - len(columns),
    )


def _cell(value: Any) -> str:
    """A value as one line of text."""
    if not isinstance(value, str):
        value = "" if value is None else json.dumps(value, ensure_ascii=False)
    text = " ".join(value[: 10 * CELL_LENGTH_MAX].split())
    return text if len(text) <= CELL_LENGTH_MAX else f"{text[: CELL_LENGTH_MAX - 1]}…"


def _sum(values: Iterable[Any]) -> Decimal | None:
    """The sum of a column, None if it has none. Empty cells count for nothing."""
    numbers = []
    for value in values:
        if value not in (None, ""):
            number = _number(value)
            if number is None:
                return None
            numbers.append(number)
    return sum(numbers, Decimal()) if numbers else None


def _number(value: Any) -> Decimal | None:
    """The value as a number; text counts as well, since CSV has nothing else."""
    try:
        number = Decimal(str(value))  # not of the float itself: 0.1 is to be 0.1
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < NUMBER_LENGTH_MAX else None
