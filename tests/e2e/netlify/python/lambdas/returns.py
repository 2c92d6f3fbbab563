import json


async def handler(event, context):
    return json.loads(event["body"])
