"""NAME: answered at once with 202, it runs in the background, for up to a quarter of an hour.

curl -i -d '{"items": ["one", "two"]}' -H content-type:application/json \
     localhost:8888/.netlify/functions/NAME

The name ends in -background, and that makes it a background function. The 202 says that the work is
safely on disk; its header Location is where to see what becomes of it (with localhost:8888 in front, open
it in a browser).
"""

import json
import time

from quarterhour import DoNotRetry, RetryAfter

# All of it may be left out. It is read without running this file, so write plain values.
config = {
    "timeout": 300,  # seconds for one attempt; without it 900
    "retries": 2,  # more attempts after one that failed
    "retry_delay": [60, 120],  # seconds before the first of them and before the second
}


def handler(event, context):
    items = items_in(event["body"])

    # A machine can die at any moment, and then all of this runs once more. So do things in a way that
    # does no harm twice: the id is the same in every attempt, and context.attempt counts them from 1.
    print(f"attempt {context.attempt} of invocation {context.aws_request_id}")  # goes to its log

    done = [work_on(item) for item in items]

    # What is returned, any JSON value, is kept as the invocation's result.
    return {"done": done}


def items_in(body):
    try:
        items = json.loads(body or "{}").get("items", ["a", "sample"])
    except (ValueError, AttributeError):
        items = None
    if not isinstance(items, list):
        # It would be as wrong the next time: it is set aside at once, as a dead letter with this message.
        raise DoNotRetry('The body must be JSON such as {"items": ["one", "two"]}.')
    return items


def work_on(item):
    """Your work goes here."""
    try:
        time.sleep(0.1)
    except ConnectionError as error:
        # This is one attempt that has failed, and you say when the next one makes sense: in 30 seconds.
        # Any other exception is tried again after "retry_delay".
        raise RetryAfter(30, f"the other side is away: {error}") from error
    return f"{item}, done"
