"""Looks every quarter of an hour whether sites are up, and says which ones have changed.

SITES='https://example.org, https://example.com/shop' make up
curl -d '{}' localhost:8888/.netlify/functions/watch-sites   looks now

SITES is handed to functions by `make up`, else by `quarterhour up --function-environment SITES`. A site is
down if it answers with an error, or not in 10 s. Then the run fails, so that whoever watches
quarterhour_outcomes_total{function="watch-sites",result="failed"} hears of it. What was found the last
time is in .quarterhour/watch/ (WATCH_DIR: another folder).
"""

import asyncio
import json
import os
from datetime import UTC, datetime

import httpx
from toolbox.files import place, write
from toolbox.web import USER_AGENT, Refused, parse_url

config = {"schedule": "*/15 * * * *"}

TIMEOUT_S = 10  # for all of it: connection, redirects, the head of the answer
SITES_MAX = 100
AT_ONCE = 10
HELP = (
    "There is nothing to watch: set SITES to addresses, such as 'https://example.org, https://example.com'."
)


class SitesDown(Exception):  # noqa: N818 - it says what was found
    """At least one of them is."""


async def handler(event, context):
    sites = read_sites(os.environ.get("SITES", ""))
    if not sites:
        print(HELP)
        return answer({"message": HELP})

    path = place("watch", "sites.json")
    before = json.loads(path.read_text()) if path.exists() else {}
    found = await look_at(sites)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    state = {site: remember(before.get(site), problem, now) for site, problem in found.items()}
    write(path, json.dumps(state, indent=2).encode())

    changes = [change for site in sites if (change := changed(site, before.get(site), state[site]))]
    for site in sites:
        print(f"{site}: {state[site]['problem'] or 'up'}, since {state[site]['since']}")
    for change in changes:
        print("CHANGED", change)
    down = [f"{site} ({problem})" for site, problem in found.items() if problem]
    if down:
        raise SitesDown(f"{len(down)} of {len(sites)} down: {', '.join(down)}")
    return answer({"up": len(sites), "changes": changes})


def read_sites(text):
    """The addresses by how they are shown, which is without a password."""
    try:
        urls = [parse_url(word) for word in text.replace(",", " ").split()]
    except Refused as error:
        raise ValueError(f"SITES: {error}") from None
    sites = {str(url.copy_with(userinfo=b"")): url for url in urls}
    if len(sites) > SITES_MAX:
        raise ValueError(f"SITES has {len(sites)} addresses; at most {SITES_MAX} are watched.")
    return sites


async def look_at(sites):
    """What is wrong with each site, None where nothing is."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(
        headers={"user-agent": USER_AGENT}, follow_redirects=True, timeout=TIMEOUT_S
    ) as client:
        problems = await asyncio.gather(*(problem_of(client, url, turns) for url in sites.values()))
    return dict(zip(sites, problems, strict=True))


async def problem_of(client, url, turns):
    try:
        async with turns, asyncio.timeout(TIMEOUT_S), client.stream("GET", url) as response:
            if response.is_success:
                return None
            return f"answered {response.status_code} {response.reason_phrase}".rstrip()
    except TimeoutError:
        return f"no answer in {TIMEOUT_S} s"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"cannot be reached: {error or type(error).__name__}"


def remember(before, problem, now):
    same = before is not None and (before["problem"] is None) == (problem is None)
    return {"problem": problem, "since": before["since"] if same else now}


def changed(site, before, after):
    """A sentence about what is different from the last time, None if nothing is."""
    if before is None or (before["problem"] is None) == (after["problem"] is None):
        return None
    if after["problem"]:
        return f"{site} is down: {after['problem']}"
    return f"{site} is up again; it was down since {before['since']}"


def answer(content):
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(content),
    }
