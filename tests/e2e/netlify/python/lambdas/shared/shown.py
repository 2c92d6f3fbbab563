"""What handlers see, as JSON, and what they write down for the tests."""

import json
import pathlib
import time

NETLIFY = (
    "awsRequestId functionName functionVersion invokedFunctionArn memoryLimitInMB logGroupName "
    "logStreamName identity clientContext callbackWaitsForEmptyEventLoop"
).split()
LAMBDA = (
    "aws_request_id function_name function_version invoked_function_arn memory_limit_in_mb log_group_name "
    "log_stream_name identity client_context"
).split()


def shown(event, context):
    names = {name: getattr(context, name) for name in NETLIFY}
    return {
        "event": event,
        "context": {**names, "remaining": context.getRemainingTimeInMillis()},
        "lambda": {
            **{name: getattr(context, name) for name in LAMBDA},
            "remaining": context.get_remaining_time_in_millis(),
        },
    }


def note(name, value):
    with pathlib.Path("notes", name).open("a") as file:
        file.write(json.dumps(value) + "\n")


def gate(name):
    """Wait until the test opens it."""
    while not pathlib.Path("gates", name).exists():
        time.sleep(0.005)
