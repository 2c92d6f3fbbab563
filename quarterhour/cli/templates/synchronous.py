"""NAME: whoever calls it waits for its answer, for up to a minute.

curl 'localhost:8888/.netlify/functions/NAME?name=Ada'
curl -d '{"name": "Ada"}' -H content-type:application/json localhost:8888/.netlify/functions/NAME
"""

import json

# What is up here runs once in each worker, which then serves one call after the other: the place for
# what is costly, such as a client of a database.


def handler(event, context):
    # The event is the request: httpMethod, path, headers, queryStringParameters, body, ...
    name = event["queryStringParameters"].get("name") or name_in(event["body"]) or "world"

    # What it prints goes to the log. The id is the caller's too, in the header x-nf-request-id.
    print(f"greeting {name}, invocation {context.aws_request_id}")

    # The answer: a status, and headers and a body (text) if you like. An exception would be a 500.
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"message": f"Hello, {name}!"}),
    }


def name_in(body):
    try:
        return json.loads(body)["name"]
    except (TypeError, ValueError, KeyError):  # no body, no JSON, no name
        return None
