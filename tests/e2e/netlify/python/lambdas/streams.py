from shared.shown import gate


def handler(event, context):
    pieces = body(event["queryStringParameters"]["gate"])
    return {"statusCode": 201, "headers": {"content-type": "text/x-pieces"}, "body": pieces}


def body(name):
    yield "one"
    gate(name)
    yield b"two"
