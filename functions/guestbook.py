"""A guestbook: a whole web application, here Starlette, as one function.

curl -d '{"name": "Ada", "text": "I was here."}' -H content-type:application/json localhost:8888/guestbook
curl localhost:8888/guestbook

Open http://localhost:8888/guestbook in a browser for the page with the form. `{}` writes a sample. The
entries are in .quarterhour/guestbook/ (GUESTBOOK_DIR: another folder); `export-guestbook` has them as CSV.
"""

import json
from html import escape
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.routing import Route
from toolbox.guestbook import NAME_LENGTH_MAX, TEXT_LENGTH_MAX, open_guestbook

config = {"path": "/guestbook"}

SHOWN_MAX = 50
SAMPLE = {"name": "Ada", "text": "This is the built-in sample."}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Guestbook</title>
<style>body {{ font: 1rem/1.5 sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}</style>
<h1>Guestbook</h1>
<form method="post">
  <p><label>Name <input name="name" required maxlength="{name_length_max}"></label>
  <p><label>Text <textarea name="text" required maxlength="{text_length_max}"></textarea></label>
  <p><button>Write</button>
</form>
<dl>{entries}</dl>
</html>
"""
ENTRY = "<dt><b>{name}</b>, {written_at}<dd>{text}"


async def show(request):
    # SQLite blocks, and may: a worker has one request at a time.
    with open_guestbook() as guestbook:
        entries = guestbook.latest(SHOWN_MAX)
    if not wants_html(request):
        return JSONResponse({"entries": [entry.as_json() for entry in entries]})
    shown = [
        ENTRY.format(**{name: escape(str(value)) for name, value in entry.as_json().items()})
        for entry in entries
    ]
    page = PAGE.format(
        entries="\n".join(shown), name_length_max=NAME_LENGTH_MAX, text_length_max=TEXT_LENGTH_MAX
    )
    return HTMLResponse(page)


async def write(request):
    try:
        name, text = check(fields_of(request, await request.body()))
    except ValueError as error:
        return JSONResponse({"error": str(error)}, status_code=422)
    with open_guestbook() as guestbook:
        entry = guestbook.add(name, text)
    print(f"{entry.name} has written entry {entry.id}")
    if wants_html(request):
        return RedirectResponse(request.url.path, status_code=303)  # so that a reload writes nothing
    return JSONResponse(entry.as_json(), status_code=201)


def fields_of(request, body):
    """The fields of a form or of JSON; the sample for `{}` and for no body."""
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    try:
        fields = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The body must be JSON or a form: {error}.") from None
    if not isinstance(fields, dict):
        raise ValueError("The body must be a JSON object, not another JSON value.")  # noqa: TRY004 - of the request
    return fields or SAMPLE


def check(fields):
    found = []
    for field, length_max in (("name", NAME_LENGTH_MAX), ("text", TEXT_LENGTH_MAX)):
        value = fields.get(field)
        if not isinstance(value, str) or not 0 < len(value.strip()) <= length_max:
            raise ValueError(f"'{field}' must be a text of 1 to {length_max} characters.")
        found.append(value.strip().encode("utf-8", "replace").decode())  # JSON can write half a character
    return found


def wants_html(request):
    return "text/html" in request.headers.get("accept", "")


app = Starlette(routes=[Route("/guestbook", show), Route("/guestbook", write, methods=["POST"])])
