from shared.shown import note, shown

config = {"schedule": "* * * * * *"}


def handler(event, context):
    note(context.function_name, shown(event, context))
    return {"statusCode": 200}
