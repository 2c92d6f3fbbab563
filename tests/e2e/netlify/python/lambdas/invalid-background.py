def handler(event, context):
    return {"statusCode": "word"}
