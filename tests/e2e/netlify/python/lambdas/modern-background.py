from shared.shown import note


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = (await receive())["body"].decode()
    note(body, scope["method"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"for nobody"})
