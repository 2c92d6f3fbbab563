"""Hypercorn without seven habits that it has no settings for.

It switches to HTTP/2 on a connection in the clear if a request asks for it. Proxies that pass such a request
on let everything after it pass unseen, and what is then no HTTP/2 ends in a traceback. It keeps a connection
whose client has gone until the idle timeout. It waits for ever for a client that reads nothing. It takes any
number of connections. To refuse a request costs it as much as to serve it. It waits for ever to tell an
application that has ended that its client is gone, if that one has sent much that nobody has read. And it
stays connected for ever to whoever it has refused a WebSocket.
"""

import asyncio
from typing import ClassVar

import h11
import hypercorn.asyncio.run
import hypercorn.protocol
import hypercorn.protocol.h11
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event, RawData, Updated
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.typing import ConnectionState

from gateway.shedding import WEIGHED, Shedding, plain_request

__all__ = ["WRITE_S", "mend_hypercorn"]

WRITE_S = 300.0  # 6 MiB take as long at 20 kB/s


class _Http1(H11Protocol):
    shedding: ClassVar[Shedding]

    async def handle(self, event: Event) -> None:
        if not self.shedding.is_due or not isinstance(event, RawData) or not self._is_idle:
            await super().handle(event)
            return
        request = plain_request(event.data)
        if request is None:
            await super().handle(event)
            return
        refusal = self.shedding.refusal(*request)
        if refusal is not None:
            await self.send(RawData(data=refusal))
            return
        usual = self.connection_state  # which is that of all connections
        self.connection_state = ConnectionState({**usual, WEIGHED: True})
        try:
            await super().handle(event)
        finally:
            self.connection_state = usual

    async def _close_stream(self) -> None:
        """Drop what has come of a request that is answered: nobody reads it any more.

        What comes waits in a queue of few places, and so does the word that it is over. Once the answer has
        begun nobody may be there who makes room in it; in particular not whoever comes here from `send`.
        """
        put = getattr(self.stream, "app_put", None)
        if put is not None and self.connection.our_state is not h11.SEND_RESPONSE:
            queue: asyncio.Queue[object] = put.__self__
            while not queue.empty():
                queue.get_nowait()
        await super()._close_stream()

    @property
    def _is_idle(self) -> bool:
        """Whether a request that comes now is the only one, and all of it is still to come."""
        http = self.connection
        return http.our_state is http.their_state is h11.IDLE and not http.trailing_data[0]

    async def _check_protocol(self, event: h11.Request) -> None:
        """Switch to nothing: what asks for h2c is answered as if it had not, as RFC 9110 (7.8) has it."""


class _WebSocket(WSStream):
    """None, since the gateway speaks HTTP alone."""

    async def _send_error_response(self, status_code: int) -> None:
        await super()._send_error_response(status_code)
        await self.send(StreamClosed(stream_id=self.stream_id))


class _Connection(TCPServer):
    most: ClassVar[int]
    open: ClassVar[int] = 0
    _is_read = True

    async def run(self) -> None:
        if _Connection.open >= _Connection.most:
            self.writer.transport.abort()
            return
        _Connection.open += 1
        try:
            await super().run()
        finally:
            _Connection.open -= 1

    async def _read_data(self) -> None:
        await super()._read_data()
        self._is_read = False
        await self.idle_task.stop()  # the client has gone: nobody is waited for

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated) and not self._is_read:
            return  # an answer that came too late: no further request does
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        timer = asyncio.get_running_loop().call_later(WRITE_S, self.writer.transport.abort)
        try:
            await super().protocol_send(event)
        finally:
            timer.cancel()


def mend_hypercorn(connections_max: int, shedding: Shedding) -> None:
    """Have it serve its connections like this from now on, and reset those that are too many."""
    _Connection.most = connections_max
    _Http1.shedding = shedding
    hypercorn.asyncio.run.TCPServer = _Connection  # type: ignore[attr-defined]
    hypercorn.protocol.H11Protocol = _Http1  # type: ignore[attr-defined]
    hypercorn.protocol.h11.WSStream = _WebSocket  # type: ignore[attr-defined]
