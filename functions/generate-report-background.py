"""Makes a PDF out of several sources: fetches them at the same time, adds them up, draws their tables.

curl -i -d '{"title": "My week", "sources": [{"name": "Cups", "rows": [{"day": "Mon", "cups": 3}]}]}' \
     -H content-type:application/json localhost:8888/.netlify/functions/generate-report-background

A source has a name and either "rows", a list of objects, or a "url" where such a list (JSON) or a CSV
file is. Every column of numbers is added up, or those in its "total": ["cups"]. With `{}` it reports
on the samples. The PDF is written into .quarterhour/reports/ (REPORTS_DIR: another folder).
"""

import asyncio

from toolbox.files import place, write
from toolbox.pdf import Report
from toolbox.request import read_fields, require
from toolbox.tables import BadTable, check_rows, make_table, parse_csv, parse_json
from toolbox.web import SAMPLE_URL, Refused, TryLater, fetch, open_client, parse_url

from quarterhour import DoNotRetry, RetryAfter

SOURCES_MAX = 10
SOURCE_BYTES_MAX = 1_000_000
ROWS_MAX = 5_000  # drawing them takes about a quarter of a minute

SAMPLE = {
    "title": "Three days at the Corner Café",
    "sources": [
        {"name": "Sales", "url": f"{SAMPLE_URL}sales.json"},
        {"name": "Costs", "url": f"{SAMPLE_URL}costs.csv"},
        {"name": "Staff", "rows": [{"who": "Ada", "hours": 21.5}, {"who": "Bob", "hours": 18}]},
    ],
}


async def handler(event, context):
    fields = read_fields(event, known=("title", "sources"))
    title, sources = check(fields or SAMPLE)
    async with open_client(sample=not fields) as client:
        # All at once, so that it takes as long as the slowest of them. An error is a result here: the
        # log shows all of them, and not only the first.
        loading = (load(client, source) for source in sources)
        results = await asyncio.gather(*loading, return_exceptions=True)
    give_up_or_try_later([result for result in results if isinstance(result, Exception)])
    rows = sum(len(table.rows) for table in results)
    require(rows <= ROWS_MAX, f"The sources have {rows} rows together; at most {ROWS_MAX} can be drawn.")

    pdf = draw(title, results, made_by=context.aws_request_id)
    # The id is the same in every attempt: another one writes the same file, not a second one.
    path = place("reports", f"{context.aws_request_id}.pdf")
    write(path, bytes(pdf.output()))
    print(f"{path}: {pdf.pages_count} pages, {rows} rows")
    return {"file": str(path), "pages": pdf.pages_count, "rows": rows}


def check(fields):
    title, sources = fields.get("title", "Report"), fields.get("sources")
    require(is_text(title, 200), "'title' must be a text of at most 200 characters.")
    require(
        isinstance(sources, list) and 1 <= len(sources) <= SOURCES_MAX,
        f"'sources' must be a list of 1 to {SOURCES_MAX} sources.",
    )
    for source in sources:
        require(
            isinstance(source, dict) and ("url" in source) != ("rows" in source),
            'A source must be like {"name": "Cups", "url": "https://..."}, or have "rows" for a "url".',
        )
        require(is_text(source.get("name"), 60), "A source's 'name' must be a text of at most 60 characters.")
        total = source.get("total", [])
        require(
            isinstance(total, list) and len(total) <= 10 and all(is_text(column, 100) for column in total),
            "A source's 'total' must be a list of at most 10 names of columns.",
        )
    return title, sources


def is_text(value, length_max):
    return isinstance(value, str) and value.strip() and len(value) <= length_max


async def load(client, source):
    name = source["name"]
    if "rows" in source:
        rows = check_rows(name, source["rows"])
    else:
        found = await fetch(client, parse_url(source["url"]), bytes_max=SOURCE_BYTES_MAX)
        is_csv = found.type == "text/csv" or found.url.path.endswith(".csv")
        rows = (parse_csv if is_csv else parse_json)(name, found.text)
    require(len(rows) <= ROWS_MAX, f"{name} has {len(rows)} rows; at most {ROWS_MAX} can be drawn.")
    print(f"{name}: {len(rows)} rows")
    return make_table(name, rows, source.get("total"))


def give_up_or_try_later(errors):
    for error in errors:
        print(error)
    for error in errors:
        if isinstance(error, (Refused, BadTable, DoNotRetry)):
            raise DoNotRetry(str(error)) from error  # it would fail again
    for error in errors:
        if isinstance(error, TryLater) and error.delay_s is not None:
            raise RetryAfter(error.delay_s, str(error)) from error  # the other side has said when
    for error in errors:
        raise error  # is tried again after a minute, and then after two


def draw(title, tables, made_by):
    pdf = Report(title, made_by)
    pdf.heading("Summary")
    pdf.table_of(
        ("Source", "Rows", "Totals"),
        [
            (
                table.name,
                f"{len(table.rows):,}",
                ", ".join(f"{column} {number:,f}" for column, number in table.totals.items()),
            )
            for table in tables
        ],
        widths=(2, 1, 5),
        right=[1],
    )
    for table in tables:
        pdf.heading(table.name)
        if table.left_out:
            pdf.text_line(f"There was no room for {table.left_out} more columns.")
        right = [index for index, column in enumerate(table.columns) if column in table.totals]
        pdf.table_of(table.columns, table.rows, right=right)
    if pdf.lacking:
        pdf.text_line("A ? may stand for a character that the font of this report does not have.")
    return pdf
