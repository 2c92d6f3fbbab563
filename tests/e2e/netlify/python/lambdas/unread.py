import os

config = {"path": os.environ.get("ADDRESS", "/unread")}


def handler(event, context):
    return {"statusCode": 200}
