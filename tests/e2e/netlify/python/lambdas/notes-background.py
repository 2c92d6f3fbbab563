from shared.shown import note, shown


def handler(event, context):
    note(context.aws_request_id, shown(event, context))
    return {"statusCode": 200, "headers": {"x-secret": "1"}, "body": "for nobody"}
