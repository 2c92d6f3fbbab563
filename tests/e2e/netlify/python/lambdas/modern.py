"""An ASGI application; in JavaScript, what gets a Request and returns a Response."""

import json


async def app(scope, receive, send):
    if scope["type"] != "http":
        return

    async def answer(status, headers=(), body=b""):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    match scope["path"].rpartition("/")[2]:
        case "request":
            shown = json.dumps(await request(scope, receive)).encode()
            await answer(200, [(b"content-type", b"application/json")], shown)
        case "response":
            cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
            await answer(418, [(b"x-one", b"1"), *cookies], "short ö".encode())
        case "bytes":
            await answer(200, body=b"\x00\xff")
        case "empty":
            await answer(204)
        case "fails":
            raise TypeError("modern")
        case "none":
            return
        case "begins":
            await send({"type": "http.response.start", "status": 200, "headers": []})


async def request(scope, receive):
    body = (await receive())["body"]
    headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    (host,) = [value for name, value in headers if name == "host"]
    query = scope["query_string"].decode()
    return {
        "method": scope["method"],
        "url": f"{scope['scheme']}://{host}{scope['raw_path'].decode()}?{query}",
        "headers": headers,
        "text": body.decode(),
    }
