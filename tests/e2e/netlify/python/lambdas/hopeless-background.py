config = {"retries": 0}


def handler(event, context):
    raise TypeError("no such thing")
