from shared.shown import gate, note


def handler(event, context):
    gate(event["body"])
    note(event["body"], event["httpMethod"])
