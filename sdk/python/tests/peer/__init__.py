"""A server that holds the SDK to the wire contract, seen from the other side.

It refuses what the contract does not allow, checks every signature with the key that the
client posted, keeps files in a folder of its own and really runs the commands, as
ordinary processes of this machine: it is for tests of the client, not a sandbox.
"""

from __future__ import annotations

import ssl
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from .agents import Agents
from .control import ControlPlane
from .data import DataPlane
from .wire import (
    CREATE,
    DATA,
    SESSIONS,
    Interceptor,
    Refused,
    Seen,
    Session,
    State,
    new_private_key,
)

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Handler", "Peer", "Refused", "Seen", "Session", "new_private_key", "stalled"]


class Handler(ControlPlane, DataPlane, Agents):
    def route(self, request_id: str) -> None:
        prefix = self.state.prefix
        parts = urlsplit(self.path)
        if not parts.path.startswith(prefix):
            raise Refused(404, "no such path", "NOT_FOUND")
        path = parts.path.removeprefix(prefix)
        if self.command == "POST" and path == CREATE:
            self.create(request_id)
        elif self.copies(path):
            pass
        elif self.command == "DELETE" and path.startswith(SESSIONS):
            self.delete(unquote(path.removeprefix(SESSIONS)))
        elif path.startswith(DATA) and "/agent-runtimes/" in path:
            self.invoke_agent(path, parts.query)
        elif self.command in {"GET", "POST"} and path.startswith(DATA):
            self.invoke(path, parts.query)
        elif self.state.older_control:
            self.answer(404, b"404 page not found")
        else:
            raise Refused(404, "no such path", "NOT_FOUND")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that hang up, and tests that hang up on them, are what is tested here.
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handle_error(request, client_address)


class Peer:
    """A running server. Use it in a ``with`` block."""

    def __init__(self, *, token: str | None = None, prefix: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agentcube-peer-")
        self.state = State(Path(self._folder.name), token=token, prefix=prefix)
        handler = type("BoundHandler", (Handler,), {"state": self.state})
        self._server = Server(("127.0.0.1", 0), handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    def wrap(self, context: ssl.SSLContext) -> None:
        """Speak TLS; to be called before the start."""
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.state.prefix}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.cleanup()

    @property
    def live(self) -> list[Session]:
        return [s for s in self.state.sessions.values() if s.fate is None]

    @property
    def only(self) -> Session:
        (session,) = self.state.sessions.values()
        return session

    def requests(self, method: str, part: str = "") -> list[Seen]:
        return [s for s in self.state.seen if s.method == method and part in s.target]

    def intercept(self, interceptor: Interceptor) -> None:
        self.state.interceptors.append(interceptor)

    def on(
        self, method: str, part: str, act: Callable[[Handler], object], times: int = 1
    ) -> list[Seen]:
        """Let ``act`` serve the next ``times`` requests of that kind; returns those it served."""
        served: list[Seen] = []

        def interceptor(handler: Handler) -> bool:
            if handler.command != method or part not in handler.path:
                return False
            with self.state.lock:
                if len(served) >= times:
                    return False
                served.append(handler.seen)
            act(handler)
            return True

        self.intercept(interceptor)
        return served

    def answer(
        self,
        method: str,
        part: str,
        status: int,
        body: Any,
        headers: dict[str, str] | None = None,
        times: int = 1,
    ) -> list[Seen]:
        """Answer the next requests of that kind with this, having read their bodies."""

        def act(handler: Handler) -> None:
            handler.seen.body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
            handler.answer(status, body, headers)

        return self.on(method, part, act, times)


def stalled(release: threading.Event) -> Callable[[Handler], None]:
    """Serves a request by not answering it until released."""

    def act(handler: Handler) -> None:
        release.wait(60)
        handler.drop()

    return act
