import json

from shared.shown import note

config = {"retries": 2, "retry_delay": [0.05, 0.1]}


def handler(event, context):
    note(context.aws_request_id, context.attempt)
    if context.attempt <= json.loads(event["body"])["fails"]:
        raise TypeError("not yet")
    return "done"
