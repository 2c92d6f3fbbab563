config = {"background": False}


def handler(event, context):
    return {"statusCode": 200}
