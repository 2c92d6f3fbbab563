def handler(event, context):
    asked = event["queryStringParameters"]
    if size := asked.get("bytes"):
        return {"statusCode": 200, "body": "x" * int(size)}
    return {"statusCode": 200, "body": pieces(int(asked["streamed"]))}


def pieces(left):
    while left > 0:
        yield bytes(min(left, 65536))
        left -= 65536
