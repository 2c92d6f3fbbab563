config = {"method": "DELETE"}


def handler(event, context):
    return {"statusCode": 200, "body": event["httpMethod"]}
