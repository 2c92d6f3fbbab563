"""From a page's HTML to what it says, with selectolax, whose parser reads what browsers read."""

from contextlib import suppress
from typing import Any

import httpx
from selectolax.lexbor import LexborHTMLParser, LexborNode

from toolbox.web import Fetched, Refused, parse_url

__all__ = ["read_html"]

LINKS_MAX = 500
HEADINGS_MAX = 50
TEXT_LENGTH_MAX = 300


def read_html(page: Fetched) -> tuple[dict[str, Any], list[httpx.URL]]:
    """The title, description, headings and number of words of a page, and its links, each of them once."""
    tree = LexborHTMLParser(page.text)
    links = _links(tree, page.url)
    description = tree.css_first('meta[name="description" i]')
    headings = tree.css("h1, h2, h3")[:HEADINGS_MAX]
    tree.strip_tags(["script", "style", "noscript", "template"])  # they are no text
    content = {
        "title": _text(tree.css_first("title")),
        "description": _short(description.attributes.get("content")) if description else "",
        "headings": [{"level": int((node.tag or "h0")[1]), "text": _text(node)} for node in headings],
        "words": len(tree.body.text(separator=" ").split()) if tree.body else 0,
    }
    return content, links


def _links(tree: LexborHTMLParser, url: httpx.URL) -> list[httpx.URL]:
    base = tree.css_first("base[href]")
    if base:
        with suppress(Refused):
            url = parse_url(base.attributes["href"], url)
    links = {}  # a dict, because unlike a set it keeps the order
    for node in tree.css("a[href]")[:LINKS_MAX]:
        with suppress(Refused):  # mailto: and the like
            links[parse_url(node.attributes["href"], url)] = True
    return list(links)


def _text(node: LexborNode | None) -> str:
    return _short(node.text(separator=" ")) if node else ""


def _short(text: str | None) -> str:
    return " ".join((text or "").split())[:TEXT_LENGTH_MAX]
