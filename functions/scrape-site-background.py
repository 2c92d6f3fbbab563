"""Reads the pages of a website: titles, headings, how many words, and where their links lead.

curl -i -d '{"url": "https://example.org/", "pages_max": 10, "delay_s": 1}' \
     -H content-type:application/json localhost:8888/.netlify/functions/scrape-site-background

It begins at the address and follows the links within the site, the nearest pages first, one page at a
time and only where the site's robots.txt lets it. With `{}` it reads the site in toolbox/samples/. What
it found is written into .quarterhour/scrapes/ (SCRAPES_DIR: another folder).
"""

import asyncio
import json
from collections import deque
from urllib.robotparser import RobotFileParser

from toolbox.files import place, write
from toolbox.html import read_html
from toolbox.request import read_fields, require
from toolbox.web import SAMPLE_URL, USER_AGENT, Refused, TryLater, fetch, open_client, parse_url

from quarterhour import DoNotRetry, RetryAfter

PAGES_MAX = 100
DELAY_S_MAX = 30
PAGE_BYTES_MAX = 1_000_000
ROBOTS_BYTES_MAX = 500_000
HTML = ("text/html", "application/xhtml+xml")
RESERVE_S = 40  # as long as a page may take, and a little for the file

SAMPLE = {"url": SAMPLE_URL, "delay_s": 0}


async def handler(event, context):
    fields = read_fields(event, known=("url", "pages_max", "delay_s"))
    async with open_client(sample=not fields) as client:
        try:
            walk = await scrape(client, context, **check(fields or SAMPLE))
        except Refused as error:  # the first page; of the others it is part of the result
            raise DoNotRetry(str(error)) from error
        except TryLater as error:
            if error.delay_s is not None:  # the site has said when
                raise RetryAfter(error.delay_s, str(error)) from error
            raise

    path = place("scrapes", f"{context.aws_request_id}.json")
    everything = {"pages": walk.pages, "skipped": walk.skipped}
    write(path, json.dumps(everything, indent=2).encode())
    print(f"{path}: {len(walk.pages)} pages, {len(walk.skipped)} skipped")
    # A result is kept up to 64 KiB. Everything is in the file, so this says only what one wants to see.
    return {
        "file": str(path),
        "pages": len(walk.pages),
        "words": sum(page["words"] for page in walk.pages),
        "titles": [page["title"] for page in walk.pages[:10]],
        "skipped": len(walk.skipped),
        "left": len(walk.queue),
    }


def check(fields):
    pages_max, delay_s = fields.get("pages_max", 10), fields.get("delay_s", 1)
    require(
        type(pages_max) is int and 1 <= pages_max <= PAGES_MAX,
        f"'pages_max' must be a whole number from 1 to {PAGES_MAX}.",
    )
    require(
        type(delay_s) in (int, float) and 0 <= delay_s <= DELAY_S_MAX,
        f"'delay_s' must be a number of seconds from 0 to {DELAY_S_MAX}.",
    )
    start = parse_url(fields.get("url")).copy_with(userinfo=b"")  # passwords have no place in a log
    return {"start": start, "pages_max": pages_max, "delay_s": delay_s}


async def scrape(client, context, *, start, pages_max, delay_s):
    walk = Walk(start)
    await walk.read_robots(client)
    delay_s = max(delay_s, walk.delay_s)
    for number in range(pages_max):
        if not walk.queue or context.get_remaining_time_in_millis() < 1000 * (delay_s + RESERVE_S):
            break  # what is there by now is worth more than being killed with nothing
        if number > 0:
            await asyncio.sleep(delay_s)
        url = walk.queue.popleft()
        try:
            found = await fetch(client, url, bytes_max=PAGE_BYTES_MAX, types=HTML, why_not=walk.why_not)
        except (Refused, TryLater) as error:
            if number == 0:
                raise
            walk.skip(url, str(error))
        else:
            walk.keep(url, found)
    return walk


class Walk:
    """A walk through a site: what was read, what was skipped and why, and what is still to be read."""

    def __init__(self, start):
        self.start = start
        self.robots = RobotFileParser()
        self.robots.parse([])  # everything is allowed
        self.delay_s = 0
        self.pages, self.skipped = [], []
        self.queue, self.known = deque([start]), {start}

    async def read_robots(self, client):
        """Learn what the site does not want to be read."""
        url = parse_url("/robots.txt", self.start)
        try:
            found = await fetch(client, url, bytes_max=ROBOTS_BYTES_MAX, why_not=self.why_not)
        except Refused as error:  # there is none
            print(error)
            return
        try:
            self.robots.parse(found.text.splitlines())
        except ValueError as error:
            message = f"{found.url} cannot be understood, so nothing is allowed: {error}"
            raise Refused(message) from error
        self.delay_s = min(self.robots.crawl_delay(USER_AGENT) or 0, DELAY_S_MAX)

    def is_here(self, url):
        """Whether an address is on the site."""
        return (url.host, url.port) == (self.start.host, self.start.port)

    def why_not(self, url):
        """Why an address must not be requested, None if it may be."""
        if not self.is_here(url):
            return "is on another site"
        return None if self.robots.can_fetch(USER_AGENT, str(url)) else "is off limits, says robots.txt"

    def keep(self, url, found):
        """Keep what a page says, and follow its links."""
        if found.url != url and found.url in self.known:
            return  # a redirect to a page that has been read, or will be
        self.known.add(found.url)
        content, links = read_html(found)
        links_out = [str(link) for link in links if not self.is_here(link)]
        self.pages.append({"url": str(found.url), **content, "links_out": links_out})
        print(f"{found.url}: {content['words']} words, {len(links)} links")
        for link in links:
            if self.is_here(link) and link not in self.known:
                self.known.add(link)
                if reason := self.why_not(link):
                    self.skip(link, f"It {reason}.")
                else:
                    self.queue.append(link)

    def skip(self, url, reason):
        """Remember why a page was not read."""
        print(f"{url} is skipped: {reason}")
        self.skipped.append({"url": str(url), "reason": reason})
