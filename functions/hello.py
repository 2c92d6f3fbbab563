"""Greets by name: the smallest function that takes something from its request.

curl 'localhost:8888/.netlify/functions/hello?name=Ada'
curl -d '{"name": "Ada"}' -H content-type:application/json localhost:8888/.netlify/functions/hello
"""

import json


def handler(event, context):
    # The event is the request: httpMethod, path, headers, queryStringParameters, body, ...
    name = event["queryStringParameters"].get("name") or name_in(event["body"]) or "world"
    answer = {
        "message": f"Hello, {name}!",
        # The context is about this run of the function; its id is in the response's x-nf-request-id too.
        "invocation": context.aws_request_id,
        "milliseconds_left": context.get_remaining_time_in_millis(),
    }
    print(answer["message"])  # what a function prints goes to the log
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(answer),
    }


def name_in(body):
    try:
        return json.loads(body)["name"]
    except (TypeError, ValueError, KeyError):  # no body, no JSON, no name: then there is no name
        return None
