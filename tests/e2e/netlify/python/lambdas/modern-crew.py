import json

config = {"path": ["/crew/:ship/:name", "/crew", "/files/*"]}


def handler(event, context):
    return {"statusCode": 200, "body": json.dumps(context.params)}
