config = {"path": "/picky", "method": ["POST", "PATCH"]}


def handler(event, context):
    return {"statusCode": 200, "body": event["httpMethod"]}
