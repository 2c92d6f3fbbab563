# ruff: noqa: E501, ISC004
"""Malformed HTTP: rows that are known from elsewhere, what chance has found here, and what it works with."""

from tests.process.gateway_rig import PREFIX

__all__ = ["CANARY", "FOUND", "PATHS", "PIECES", "SEEDS", "SMUGGLED", "SMUGGLING"]

SMUGGLED = f"GET {PREFIX}/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
CANARY = f"GET {PREFIX}/hello/canary HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


HEAD = b"POST %s/hello HTTP/1.1\r\nHost: localhost\r\n" % PREFIX.encode()
LENGTH = b"Content-Length: %d\r\n" % len(SMUGGLED)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
# What would make a proxy in front see one request, and a careless server behind it two.
SMUGGLING = {
    "CL.TE": HEAD + LENGTH + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "TE.CL": HEAD + CHUNKED + b"Content-Length: 4\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
    "CL.CL": HEAD + b"Content-Length: 0\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    "a list of lengths": HEAD + b"Content-Length: 0, 5\r\n\r\n" + SMUGGLED,
    "a length with a sign": HEAD + b"Content-Length: +0\r\n\r\n" + SMUGGLED,
    "a length in hexadecimal": HEAD + b"Content-Length: 0x0\r\n\r\n" + SMUGGLED,
    "a length past 64 bits": HEAD + b"Content-Length: 18446744073709551616\r\n\r\n" + SMUGGLED,
    "a length before a space": HEAD + b"Content-Length : 0\r\n\r\n" + SMUGGLED,
    "TE.TE, two of them": HEAD + CHUNKED + b"Transfer-Encoding: x\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE.TE, a tab": HEAD + b"Transfer-Encoding:\tchunked\r\n" + LENGTH + b"\r\n0\r\n\r\n" + SMUGGLED,
    "TE.TE, a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n" + LENGTH + b"\r\n0\r\n\r\n" + SMUGGLED,
    "TE.TE, a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    "TE.TE, a folded line": HEAD + b"Transfer-Encoding:\r\n chunked\r\n" + LENGTH + b"\r\n0\r\n\r\n" + SMUGGLED,
    "TE.TE, not at the end": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE.TE, quoted": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + SMUGGLED,
    "TE in HTTP/1.0": HEAD.replace(b"/1.1", b"/1.0") + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "CL.0": HEAD + LENGTH + b"\r\n" + SMUGGLED,
    "CL.0 to the API": HEAD.replace(b"/.netlify/functions/hello", b"/healthz") + LENGTH + b"\r\n" + SMUGGLED,
    "CL.0 to nothing": HEAD.replace(b"/hello", b"/missing") + LENGTH + b"\r\n" + SMUGGLED,
    "CL.0 of a GET": HEAD.replace(b"POST", b"GET") + LENGTH + b"\r\n" + SMUGGLED,
    "a chunk's size past 64 bits": HEAD + CHUNKED + b"\r\n10000000000000000\r\n\r\n" + SMUGGLED,
    "a chunk's size with a sign": HEAD + CHUNKED + b"\r\n+0\r\n\r\n" + SMUGGLED,
    "a chunk's size in hexadecimal": HEAD + CHUNKED + b"\r\n0x0\r\n\r\n" + SMUGGLED,
    "a chunk's size after a space": HEAD + CHUNKED + b"\r\n 0\r\n\r\n" + SMUGGLED,
    "a chunk that is longer than it says": HEAD + CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk's extension with a line feed": HEAD + CHUNKED + b"\r\n5;a\nabcde\r\n0\r\n\r\n" + SMUGGLED,
    "a huge extension of a chunk": HEAD + CHUNKED + b"\r\n5;" + b"a" * 300_000 + b"\r\nabcde\r\n0\r\n\r\n" + SMUGGLED,
    "huge trailers": HEAD + CHUNKED + b"\r\n0\r\nT: " + b"a" * 300_000 + b"\r\n\r\n" + SMUGGLED,
    "a bare carriage return": HEAD + b"X: y\rContent-Length: 0\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    "NUL in a header": HEAD + b"X: \0\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    "a folded header": HEAD + b"X: y\r\n Content-Length: 0\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    "line feeds alone": (HEAD + LENGTH).replace(b"\r\n", b"\n") + b"\n" + SMUGGLED,
    "a header's name with a line in it": HEAD + b"X\r\n\r\nY: z\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    "h2c": HEAD.replace(b"POST", b"GET")
    + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n",
    "h2c with no settings": HEAD.replace(b"POST", b"GET") + b"Upgrade: h2c\r\nHTTP2-Settings: ?\r\n\r\n",
    "HTTP/2 from the start": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
}  # fmt: skip


# What chance has found, before it was mended; each once ended in a traceback, or hung.
FOUND = [
    b"GET /healthz HTTP/1.1\r\nHost: .\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a..b\r\n\r\n",
    b"GET ?a=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://x.example HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/functions#x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET // HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAIAAAAA\r\n\r\n",
]


SEEDS = [
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET PATH?a=1&b=%20&c HTTP/1.1\r\nHost: localhost\r\nCookie: a=b; c=d\r\nAccept: */*\r\n\r\n",
    b"POST PATH HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde",
    b"POST PATH HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b"POST PATH HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n"
    b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n",
    b"POST PATH HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(SMUGGLED), SMUGGLED),
    b"POST PATH HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"GET http://x.example:80PATH HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET PATH HTTP/1.0\r\n\r\n",
    b"GET PATH HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
]
PATHS = [f"{PREFIX}/hello", f"{PREFIX}/hello-background", f"{PREFIX}/missing", "/v1/functions", "/healthz",
         "/v1/invocations/x", "/nothing", "/v1/functions/%00", "/", "//", "/..%2f..", "/%2e%2e/v1"]  # fmt: skip
PIECES = [
    b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"\x0b", b"\x7f", b"\x80", b"\xff", b"+", b"-", b"0",
    b"00000000000", b"0x5", b"99999999999999999999", b"4294967297", b"\r\n ", b"\n\n", b"\r\n\r\n", b"_", b"#", b"?",
    b"/", b"//", b"/../", b"%00", b"%0d%0a", b"%2f", b"%", b"http://", b"@", b"\\", b"*", b"HTTP/1.1", b"HTTP/2.0",
    b"HTTP/1.0", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length : 5\r\n",
    b"Content-Length: +5\r\n", b"Content-Length: 5, 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding : chunked\r\n", b"Host: y\r\n", b"Host: \r\n", b"Connection: close\r\n",
    b"Connection: Content-Length\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"Upgrade: websocket\r\n",
    b"Connection: upgrade\r\n", b"X: \r\n y\r\n", b"a" * 3000, SMUGGLED,
]  # fmt: skip
