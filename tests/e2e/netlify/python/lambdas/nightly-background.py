config = {"schedule": "@daily"}


def handler(event, context):
    return None
