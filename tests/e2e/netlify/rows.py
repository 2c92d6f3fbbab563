"""What Netlify's behaviour comes to, row by row, and where Quarterhour differs on purpose.

Each test says with `@row(...)` which rows it is a case of; `test_rows.py` sees to it that every row has
a case for each language that it is about.
"""

from dataclasses import dataclass

import pytest

__all__ = ["JAVASCRIPT", "LANGUAGES", "PYTHON", "ROWS", "Row", "javascript", "python", "row"]

PYTHON, JAVASCRIPT = "python", "javascript"
LANGUAGES = (PYTHON, JAVASCRIPT)

row = pytest.mark.row
python = pytest.mark.parametrize("language", [PYTHON], indirect=True)
javascript = pytest.mark.parametrize("language", [JAVASCRIPT], indirect=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that holds, in the languages that have it."""

    says: str
    languages: tuple[str, ...] = LANGUAGES


FINDING = {
    "folder": Row("[build] functions or [functions] directory in either TOML file; --functions wins."),
    "layouts": Row("name.js, name/name.js, name/index.js; nothing else in a folder is a function."),
    "suffixes": Row(".js .mjs .cjs .ts .mts .cts are functions, in this order.", (JAVASCRIPT,)),
    "precedence": Row("A folder before a file, in it name.* before index.*."),
    "two-languages": Row("One name in two languages is an error at the start that names both files."),
    "names": Row("A-Z a-z 0-9 _ -, with their case; every other file is never served, and asking is 404."),
    "background-rule": Row("The source's config, then the TOML, then the very suffix -background."),
    "config": Row("A literal in the source, or the TOML; read without running the module."),
    "netlify-config": Row("Keys that mean something to Netlify alone do no harm.", (JAVASCRIPT,)),
    "schedule": Row("config.schedule or the TOML: five fields or @hourly and its kind, in UTC."),
}

REQUESTS = {
    "route": Row("The address, and whatever follows the name: event.path is verbatim."),
    "not-found": Row("404 `Function not found...` for every method and whatever is no function."),
    "methods": Row("Every method runs the function with its real name."),
    "head": Row("HEAD runs it and gets no body."),
    "cors": Row("A preflight is a request like others; nothing is added."),
    "body-limit": Row("6,291,456 bytes, one more is 413; chunked and background too."),
    "query": Row("Joined, in lists and verbatim; what is invalid stays."),
    "headers": Row("Names in lower case, repeated ones joined and in lists."),
    "client-address": Row("client-ip and x-nf-client-connection-ip are the peer's, whatever a client says."),
    "proxies": Row("X-Forwarded-For is believed of proxies that the operator trusts."),
    "request-id": Row("x-nf-request-id in event and response is the invocation's id."),
    "text-bodies": Row("Text is text, never parsed."),
    "other-bodies": Row("Everything else is base64, a body without a content type included."),
    "no-body": Row("null without a body, and text of no length with Content-Length: 0."),
    "raw-url": Row("Scheme, Host, path and raw query."),
    "event-keys": Row("The ten keys of an event."),
    "not-believed": Row("Headers of Netlify's own and a look-alike of the address lead nowhere else."),
}

RESULTS = {
    "context": Row("What a classic handler may ask, with an id that is new each time."),
    "context-callbacks": Row("done, fail and succeed, for old code.", (JAVASCRIPT,)),
    "context-lambda": Row("The names that Lambda's Python authors know.", (PYTHON,)),
    "result": Row("Status, headers and body as the function says; a status may be text."),
    "several-values": Row("multiValueHeaders win for each name, with a line for each value."),
    "no-invention": Row("No content type is invented."),
    "bodiless": Row("204 and 304 have no body; null, missing and empty are none."),
    "no-result": Row("Nothing, null, text and lists are 500."),
    "bad-status": Row("A status that is missing, no number or not in 200 to 599 is 500."),
    "bad-body": Row("A body that is neither text nor empty is 500."),
    "bad-header": Row("A bad name or a line break is 500, and nothing is injected."),
    "failure": Row("Whatever is thrown, or cannot be loaded: 500, JSON, with type and message."),
    "failure-trace": Row("The trace is shown with --expose-errors alone."),
    "failure-head": Row("A failure has no body for HEAD."),
    "callbacks": Row("callback(error) and callback(null, result).", (JAVASCRIPT,)),
    "crash": Row("A worker that ends is a 500, and the next call finds another one."),
    "time-limit": Row("Past the limit it is 504; the limit is 60 s if nothing else is said."),
    "response-size": Row("6 MiB at once, 20 MiB bit by bit."),
}

MODERN = {
    "modern": Row("Request in, Response out; in Python an ASGI application."),
    "modern-nothing": Row("undefined is 204.", (JAVASCRIPT,)),
    "modern-no-response": Row("No response is 500."),
    "streams": Row("What is streamed arrives before the function ends."),
    "path": Row("config.path replaces the default address."),
    "path-method": Row("config.method restricts the path; other methods find nothing."),
    "params": Row("context.params holds the path's named parts."),
}

BACKGROUND = {
    "accepted": Row("202 for every method, no length, no type."),
    "accepted-early": Row("202 comes before the function ends, whether or not it can run."),
    "result-hidden": Row("What it returns never reaches the client."),
    "background-event": Row("Event and context are those of a synchronous function."),
    "client-gone": Row("The client going away does not stop it."),
    "background-limit": Row("15 minutes if nothing else is said."),
    "retries": Row("An error is tried again after one minute and after two more, or as the function says."),
    "scheduled": Row("A POST with next_run, Netlify's user agent, and x-nf-event."),
    "scheduled-limit": Row("60 s for one firing, 15 minutes of a background function."),
    "scheduled-address": Row("Not by its address, except with up."),
}

COMMANDS = {
    "create": Row("`new` writes a function that runs."),
    "list": Row("`list` shows them all."),
    "invoke": Row("`invoke` sends a body and a query, and prints the answer."),
    "exit-status": Row("`invoke` ends with 1 where the function has failed."),
}

ROWS = {**FINDING, **REQUESTS, **RESULTS, **MODERN, **BACKGROUND, **COMMANDS}
