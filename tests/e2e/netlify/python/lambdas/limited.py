import asyncio
import time

config = {"timeout": 0.5}


async def handler(event, context):
    match event["queryStringParameters"].get("how"):
        case "never":
            await asyncio.get_running_loop().create_future()
        case "busy":
            while True:
                pass
        case "waits":
            time.sleep(120)
    return {"statusCode": 200}
