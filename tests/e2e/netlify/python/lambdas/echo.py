import json

from shared.shown import note, shown


def handler(event, context):
    if name := event["queryStringParameters"].get("note"):
        note(name, event["httpMethod"])
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(shown(event, context)),
    }
