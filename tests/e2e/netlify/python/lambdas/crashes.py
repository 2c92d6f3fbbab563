import ctypes
import os
import signal


def handler(event, context):
    match event["queryStringParameters"].get("how"):
        case "exit":
            os._exit(3)
        case "signal":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fault":
            ctypes.string_at(0)
    return {"statusCode": 200}
