config = {"path": "/later/:what"}


def handler(event, context):
    return None
