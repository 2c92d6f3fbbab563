class TeapotError(Exception):
    pass


def handler(event, context):
    match event["queryStringParameters"].get("how"):
        case "object":
            raise TeapotError({"short": True, "stout": True})
        case "exit":
            raise SystemExit(1)
        case _:
            raise TypeError("no such thing")
