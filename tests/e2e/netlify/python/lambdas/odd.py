"""Results that no JSON can say."""


def handler(event, context):
    match event["queryStringParameters"]["case"]:
        case "nothing":
            return None
        case "bytes":
            return {"statusCode": 200, "body": b"bytes"}
        case "a status that is no text":
            return {"statusCode": handler}
