from shared.shown import note


def handler(event, context):
    note(context.aws_request_id, len(event["body"]))
