"""A session of an agent: made by the Router at its first use, and what the agent answers."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from . import _invocations, _requests
from ._calls import Calls, connection_error, read_all
from ._http import Response, TransportError
from ._invocations import SESSION_HEADER
from ._requests import Request
from ._settings import Settings
from .exceptions import ClientClosedError, InvalidResponseError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

logger = logging.getLogger("agentcube")

_ERROR = 400
_SMALL = 64 * 1024  # bytes of an answer that are read so that its connection serves again
_PIECE = 64 * 1024
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_MAX_LINE = 16 * 1024 * 1024


class AgentSession(Calls):
    """The session of one client. Safe to use from several threads."""

    def __init__(self, settings: Settings, session_id: str | None) -> None:
        super().__init__(settings)
        self._id = session_id
        # Reentrant, for signal handlers that stop the client.
        self._lock = threading.RLock()
        self._closed = False
        self._deleted = False

    @property
    def known_id(self) -> str | None:
        """The id, if the session has begun."""
        return self._id

    @property
    def is_closed(self) -> bool:
        """Whether it was ended or let go of."""
        return self._closed

    def ensure(self) -> str:
        """The id of the session, which begins if it has not."""
        with self._lock:
            if self._closed:
                raise ClientClosedError("the client was closed; make a new one")
            if self._id is None:
                self._id = self._patiently(self._begin)
                logger.debug("session created id=%s", self._id)
            return self._id

    def end(self) -> None:
        """Delete the session. Does nothing when there is none, or it was deleted before."""
        with self._lock:
            self._closed = True
            try:
                if self._id is not None and not self._deleted:
                    self._delete(self._id)
                self._deleted = True
            finally:
                self.hang_up()

    def let_go(self) -> None:
        """Close the connections and leave the session running."""
        with self._lock:
            self._closed = True
            self.hang_up()

    def hang_up(self) -> None:
        """Close the idle connections."""
        self._transport.close()

    def change(self, verb: Literal["pause", "resume"]) -> None:
        """Pause or resume the session, whichever it is now."""
        request = _requests.change_session(self.settings, self.ensure(), verb)
        request = replace(request, timeout_option="timeout")
        self._patiently(lambda: self._control(request))

    def _begin(self) -> str:
        request = _invocations.begin(self.settings)
        with self.open(request, _names_session) as response:
            session_id = response.headers.get(SESSION_HEADER, "")
            length = response.content_length  # none of a stream, which may have no end
            if length is not None and length <= _SMALL:
                with suppress(TransportError):  # it is not needed
                    response.read(_SMALL)
        if not _VISIBLE.fullmatch(session_id):
            raise InvalidResponseError(
                f"{request.endpoint} does not answer like AgentCube: it names no session "
                f"[{request.method} {request.target}]"
            )
        return session_id


def _names_session(response: Response) -> bool:
    # Whatever the agent says of "/".
    return SESSION_HEADER in response.headers or response.status < _ERROR


class AgentStream:
    """An answer of an agent that is read as it comes, in a ``with`` block.

    Iterating over it gives its pieces, as soon as they arrive.

    Attributes:
        status: The HTTP status.
        headers: The headers, by their names in lower case.
    """

    def __init__(self, request: Request, response: Response) -> None:
        self._request = request
        self._response = response
        self.status = response.status
        self.headers = response.headers

    def __repr__(self) -> str:
        return f"<AgentStream {self.status}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the connection back, or close it if the answer was not read to its end."""
        self._response.__exit__(exc_type, exc, traceback)

    def __iter__(self) -> Iterator[bytes]:
        """The pieces of the body.

        Raises:
            APIConnectionError: The connection was lost, or nothing came in time.
        """
        left = self._response.content_length  # None where the stream itself says its end
        while piece := self._piece(left):
            left = None if left is None else left - len(piece)
            yield piece

    def lines(self) -> Iterator[str]:
        """The lines of the body, as UTF-8, without what ends them: such as those of events.

        Raises:
            APIConnectionError: The connection was lost, or nothing came in time.
            InvalidResponseError: A line is longer than 16 MiB.
        """
        rest = b""
        for piece in self:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r").decode("utf-8", "replace")
            if len(rest) > _MAX_LINE:
                raise InvalidResponseError(f"a line of the answer is longer than {_MAX_LINE} bytes")
        if rest:
            yield rest.decode("utf-8", "replace")

    def value(self) -> Any:
        """All of the body: the value of JSON, or else text.

        Raises:
            APIConnectionError: The connection was lost, or nothing came in time.
            InvalidResponseError: It is longer than 256 MiB.
        """
        try:
            return _invocations.parsed(read_all(self._response))
        except TransportError as error:
            raise connection_error(self._request, error) from error

    def _piece(self, left: int | None) -> bytes:
        error: TransportError
        try:
            piece = self._response.read_some(_PIECE)
        except TransportError as failure:
            error = failure
        else:
            if piece or not left:
                return piece
            error = TransportError("lost", "the connection was lost within the answer")
        raise connection_error(self._request, error) from error
