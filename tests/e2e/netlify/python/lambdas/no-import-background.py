import nowhere_to_be_found

config = {"retries": 0}


def handler(event, context):
    return nowhere_to_be_found
