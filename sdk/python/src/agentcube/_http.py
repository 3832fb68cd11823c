"""HTTP/1.1 over the standard library: connections, their pool, and time-outs per phase.

Nothing of ``http.client`` leaves this module: its failures become :class:`TransportError`.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from ._requests import Request
from ._secure import Channel
from ._settings import Endpoint, proxy_for
from ._trace import traceparent
from ._version import __version__

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from typing_extensions import Self

# Where a connection leads: the address, and for one to a sandbox, the sandbox's name.
_Route = tuple[Endpoint, str]

USER_AGENT = f"agentcube-sdk/{__version__} python/{sys.version_info[0]}.{sys.version_info[1]}"

_SMALL = 64 * 1024  # bytes of a body
_MAX_IDLE = 8
_MAX_WAIT = 365 * 86400.0  # what every system can count
# Seconds for a handshake with a sandbox: the Router may have to wake it first, for which it
# gives itself 30 seconds, and 10 more to reach it.
_WAKE = 45.0
# Below the idle time-out of every AgentCube server, so that none closes a connection
# at the moment in which it is used again.
_MAX_IDLE_SECONDS = 30.0


_NOT_ITS_OWN = (
    "the certificate shown is not that of the session's sandbox: something before the Router "
    "ends TLS, or is hostile; have TLS pass through to the Router by its server name, or give "
    "up encryption from end to end with encrypt=False: "
)


class TransportError(Exception):
    """No complete answer came.

    Attributes:
        kind: ``refused`` and ``connect``: nothing was sent. ``lost``: the connection broke
            afterwards. ``timeout``: no answer, or no progress, in time.
    """

    def __init__(
        self, kind: Literal["refused", "connect", "connect-timeout", "lost", "timeout"], text: str
    ) -> None:
        super().__init__(text)
        self.kind = kind


class Transport:
    """Sends requests over pooled connections. Safe to use from several threads."""

    def __init__(self, connect_timeout: float) -> None:
        self._connect_timeout = connect_timeout
        # Reentrant, for signal handlers that stop the client.
        self._lock = threading.RLock()
        self._idle: list[tuple[_Route, float, _AnyConnection]] = []
        self._pid = os.getpid()
        self._tls: ssl.SSLContext | None = None

    def close(self) -> None:
        """Close the idle connections; those in use are closed by their users."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, _, connection in idle:
            connection.close()

    def send(
        self, request: Request, authorization: str | None, channel: Channel | None = None
    ) -> Response:
        """Send the request and wait for the head of the answer.

        With a channel it goes to the agent in the sandbox, through the endpoint.

        Raises:
            TransportError: No answer came.
            Exception: Whatever reading the body of the request raised.
        """
        route = (request.endpoint, "" if channel is None else channel.server_name)
        connection, target = self._connection(request, route, channel)
        try:
            with _translated():
                own_host = any(name.lower() == "host" for name in request.headers)
                connection.putrequest(request.method, target, skip_host=own_host)
                for name, value in self._headers(request, authorization):
                    connection.putheader(name, value)
                if isinstance(request.body, bytes):
                    connection.endheaders_with(request.body)
                else:
                    connection.endheaders()
            if request.body is not None and not isinstance(request.body, bytes):
                _stream(connection, request.body)
            with _translated():
                answer = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        return Response(self, route, connection, answer)

    def put_back(self, route: _Route, connection: _AnyConnection) -> None:
        """Keep a connection whose answer was read to the end."""
        with self._lock:
            if len(self._idle) < _MAX_IDLE and self._pid == os.getpid():
                self._idle.append((route, time.monotonic(), connection))
                return
        connection.close()

    def _connection(
        self, request: Request, route: _Route, channel: Channel | None
    ) -> tuple[_AnyConnection, str]:
        proxy = None if channel is not None else proxy_for(request.endpoint)
        target = request.target if channel is None else request.inside
        if proxy is not None and request.endpoint.scheme == "http":
            target = f"http://{request.endpoint.netloc}{target}"
        connection = self._take(route)
        if connection is None:
            try:
                with _translated(connecting=True):
                    if channel is None:
                        connection = self._new(request.endpoint, proxy)
                    else:
                        connection = self._through(request.endpoint, channel)
                    connection.connect()
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
        if connection.sock is not None:
            connection.sock.settimeout(min(request.read_timeout, _MAX_WAIT))
        return connection, target

    def _take(self, route: _Route) -> _AnyConnection | None:
        found: _AnyConnection | None = None
        with self._lock:
            idle, self._idle = self._idle, []
            forked = self._pid != os.getpid()  # then the parent still uses these connections
            self._pid = os.getpid()
            oldest = time.monotonic() - _MAX_IDLE_SECONDS
            keep: list[tuple[_Route, float, _AnyConnection]] = []
            for entry in reversed(idle):  # the one used last is the likeliest to be alive
                _, since, connection = entry
                if forked or since < oldest or _is_closed(connection):
                    connection.close()
                elif found is None and entry[0] == route:
                    found = connection
                else:
                    keep.append(entry)
            self._idle += reversed(keep)
        return found

    def _new(self, endpoint: Endpoint, proxy: Endpoint | None) -> _AnyConnection:
        timeout = self._connect_timeout
        if endpoint.scheme == "http":
            via = proxy or endpoint
            return _Connection(via.host, via.port, timeout=timeout)
        if proxy is not None:
            tunnel = _Tunnel(proxy.host, proxy.port, timeout=timeout, context=self._tls_context())
            tunnel.set_tunnel(endpoint.host, endpoint.port)
            return tunnel
        return _TLSConnection(endpoint.host, endpoint.port, timeout, self._tls_context())

    def _through(self, endpoint: Endpoint, channel: Channel) -> _AnyConnection:
        return _TLSConnection(
            endpoint.host,
            endpoint.port,
            self._connect_timeout,
            channel.context(),
            channel.server_name,
            handshake=max(self._connect_timeout, _WAKE),
        )

    def _tls_context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                import ssl  # noqa: PLC0415

                self._tls = ssl.create_default_context()
            return self._tls

    @staticmethod
    def _headers(request: Request, authorization: str | None) -> Iterator[tuple[str, str]]:
        yield "User-Agent", USER_AGENT
        if authorization is not None:
            yield "Authorization", f"Bearer {authorization}"
        if (parent := traceparent()) is not None:
            yield "traceparent", parent
        yield from request.headers.items()
        if isinstance(request.body, bytes):
            yield "Content-Length", str(len(request.body))
        elif request.body is not None:
            yield "Content-Length", str(request.body.content_length)
        elif request.method not in {"GET", "HEAD"}:
            yield "Content-Length", "0"


class Response:
    """The answer to a request. Use it in a ``with`` block."""

    def __init__(
        self,
        transport: Transport,
        route: _Route,
        connection: _AnyConnection,
        answer: http.client.HTTPResponse,
    ) -> None:
        self._transport = transport
        self._route = route
        self._connection = connection
        self._answer = answer
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        # None where the end is marked in the stream itself (chunked), or not at all.
        self.content_length: int | None = answer.length
        self.is_delimited = answer.length is not None or answer.chunked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None and self._answer.isclosed() and not self._answer.will_close:
            self._transport.put_back(self._route, self._connection)
        else:
            self._answer.close()
            self._connection.close()

    def read(self, limit: int) -> bytes:
        """The body, or its first ``limit`` + 1 bytes when it is longer than ``limit``."""
        body = bytearray()
        view = memoryview(bytearray(min(limit + 1, 64 * 1024)))
        while len(body) <= limit:
            count = self.readinto(view)
            if count == 0:
                break
            body += view[: min(count, limit + 1 - len(body))]
        if self.content_length is not None and len(body) < min(self.content_length, limit + 1):
            raise TransportError("lost", "the connection was lost within the answer")
        return bytes(body)

    def read_some(self, limit: int) -> bytes:
        """What has come of the body, as soon as there is any; nothing at its end."""
        with _translated():
            return self._answer.read1(limit)

    def readinto(self, buffer: memoryview) -> int:
        """Read some of the body; 0 at its end, or where the connection was lost."""
        with _translated():
            return self._answer.readinto(buffer)


class _AnyConnection(http.client.HTTPConnection):
    """Sends the head and a small body of a request in one piece.

    The library sends them in two, and then the server wakes up twice for a request.
    """

    _held: list[bytes] | None = None

    def endheaders_with(self, body: bytes) -> None:
        if len(body) > _SMALL:
            self.endheaders(body)
            return
        held = self._held = []
        try:
            self.endheaders(body)
        finally:
            self._held = None
        self.send(b"".join(held))

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)


class _Tunnel(_AnyConnection, http.client.HTTPSConnection):
    """TLS through a proxy, as the library makes it."""


class _Connection(_AnyConnection):
    def connect(self) -> None:
        self.sock = _dial(self.host, self.port, self.timeout)


class _TLSConnection(_Tunnel):
    def __init__(
        self,
        host: str,
        port: int,
        timeout: float,
        context: ssl.SSLContext,
        server_name: str | None = None,
        handshake: float | None = None,
    ) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._tls = context
        self._handshake = timeout if handshake is None else handshake
        self._server_name = server_name or host

    def connect(self) -> None:
        plain = _dial(self.host, self.port, self.timeout)
        try:
            plain.settimeout(self._handshake)
            self.sock = self._tls.wrap_socket(plain, server_hostname=self._server_name)
        except ValueError as error:  # a certificate that is not trusted is one, and an OSError
            plain.close()
            if self._server_name == self.host or not isinstance(error, OSError):
                raise
            raise TransportError("connect", _NOT_ITS_OWN + str(error)) from error
        except BaseException:
            plain.close()
            raise


def _dial(host: str, port: int, timeout: float | None) -> socket.socket:
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if host == "localhost":
        # AgentCube listens on 127.0.0.1, and not every system refuses ::1 at once.
        addresses.sort(key=lambda address: address[0] != socket.AF_INET)
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _notice_silence(sock)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def _notice_silence(sock: socket.socket) -> None:
    # A server that is gone without a word is noticed, where the system lets one say so:
    # after some 20 seconds while it is waited for, and after a minute, longer than a
    # session needs to wake, while something is on its way to it.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 60_000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _stream(connection: http.client.HTTPConnection, body: Iterable[bytes]) -> None:
    # Reading the body may fail for reasons of its own (a bad disk, the caller's progress
    # function); only the sending is the network's.
    for chunk in body:
        try:
            with _translated():
                connection.send(chunk)
        except TransportError as error:
            if error.kind == "lost":
                # The server may have refused early, and its answer lies ready to be read.
                return
            raise


def _is_closed(connection: http.client.HTTPConnection) -> bool:
    """Whether the server closed an idle connection: then there is something to be read."""
    sock: socket.socket | None = connection.sock
    if sock is None:
        return True
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        return bool(poller.poll(0))
    return bool(select.select([sock], [], [], 0)[0])


@contextmanager
def _translated(*, connecting: bool = False) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        if connecting:
            raise TransportError("connect-timeout", "no connection in time") from error
        raise TransportError("timeout", "no answer in time") from error
    except ConnectionRefusedError as error:
        raise TransportError("refused" if connecting else "lost", "connection refused") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        # What HTTPException says may quote the answer.
        text = str(error) if isinstance(error, OSError) else type(error).__name__
        raise TransportError("connect" if connecting else "lost", text) from error
