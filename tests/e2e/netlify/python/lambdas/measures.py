def handler(event, context):
    return {"statusCode": 200, "body": f"{len(event['body'])} {str(event['isBase64Encoded']).lower()}"}
