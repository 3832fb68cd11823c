"""How requests are sent: with whose token, how often, and what their failures are called."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from . import _requests, _responses
from ._forms import Multipart
from ._http import Response, Transport, TransportError
from ._requests import Request
from ._secure import Channel
from ._settings import Settings
from ._tokens import BearerTokens
from .exceptions import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    InvalidResponseError,
)

logger = logging.getLogger("agentcube")

T = TypeVar("T")

# Far above what servers send: it only keeps a runaway answer from filling the memory.
MAX_ANSWER = 256 * 1024 * 1024
_MAX_ERROR_BODY = 64 * 1024
_BACKOFF = 0.1  # seconds, doubled with each attempt
_MAX_BACKOFF = 2.0
_MAX_RETRY_AFTER = 30.0
_GOOD = range(200, 300)
_GONE = (404, 410)
_BUSY = (429, 503)
_NEVER = "SANDBOX_NOT_ALLOWED"  # 503 as well, but no patience helps
_NOT_SENT = ("refused",)
_NOT_ANSWERED = ("refused", "lost")
_URL_SETTINGS = {
    "control": "workload_manager_url (WORKLOAD_MANAGER_URL)",
    "data": "router_url (ROUTER_URL)",
}


Accept = Callable[[Response], bool]


def _is_good(response: Response) -> bool:
    return response.status in _GOOD


class Calls:
    """Sends the requests of one client. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._tokens = BearerTokens(settings.tokens)
        self._transport = Transport(settings.timeouts.connect)
        self._channel: Channel | None = None

    def call(self, request: Request) -> bytes:
        """Send a data-plane request and read the whole answer."""
        with self.open(request) as response:
            began = time.time()
            try:
                return read_all(response)
            except TransportError as error:
                self._broken(request, error, began)
                raise connection_error(request, error) from error

    def open(self, request: Request, accept: Accept = _is_good) -> Response:
        """Send a data-plane request; the body of a good answer is left to be read.

        Only a refused connection is tried again: nothing was sent over it.

        Raises:
            APIConnectionError: No answer.
            APIStatusError: The server refused.
        """
        return self._retried(request, _NOT_SENT, lambda: self._attempt(request, accept))

    def _patiently(self, act: Callable[[], T]) -> T:
        """Do something again while the server is too busy to begin with it."""
        attempt = 0
        while True:
            try:
                return act()
            except APIStatusError as error:
                busy = error.status in _BUSY or error.code == "SESSION_NOT_READY"
                busy = busy and error.code != _NEVER
                if not busy or attempt >= self.settings.max_retries:
                    raise
                wait = getattr(error, "retry_after", None)
                logger.debug("server busy attempt=%d status=%s", attempt + 1, error.status)
            time.sleep(_backoff(attempt) if wait is None else min(wait, _MAX_RETRY_AFTER))
            attempt += 1

    def _delete(self, session_id: str) -> None:
        try:
            self._control(_requests.delete_session(self.settings, session_id))
        except APIStatusError as error:
            if error.status not in _GONE:
                raise
        logger.debug("session deleted id=%s", session_id)

    def _control(self, request: Request) -> bytes:
        """Send a control-plane request that may be repeated."""
        return self._retried(request, _NOT_ANSWERED, lambda: self._exchange(request))

    def _once(self, request: Request) -> bytes:
        """Send a control-plane request whose repetition would be another one."""
        return self._retried(request, _NOT_SENT, lambda: self._exchange(request))

    def _exchange(self, request: Request) -> bytes:
        with self._attempt(request) as response:
            return read_all(response)

    def _retried(self, request: Request, again_after: tuple[str, ...], act: Callable[[], T]) -> T:
        attempt, began = 0, time.time()
        while True:
            try:
                return act()
            except TransportError as error:
                logger.debug("no answer %s %s: %s", request.method, request.endpoint, error.kind)
                last = attempt >= self.settings.max_retries
                if not last and self._broken(request, error, began):
                    attempt += 1
                    continue
                if error.kind not in again_after or last:
                    raise connection_error(request, error) from error
            time.sleep(_backoff(attempt))
            attempt += 1

    def _attempt(self, request: Request, accept: Accept = _is_good) -> Response:
        """Send a request once and raise what is not a good answer.

        A token that was replaced while it was under way is refused: then the new one is
        shown, once. What was refused for that has not been done.
        """
        signed, authorization = self._signed(request)
        try:
            return self._accepted(signed, authorization, accept)
        except AuthenticationError as error:
            # An agent's own server may refuse what it has begun; only AgentCube gives a code.
            ours = request.plane == "control" or error.code is not None
            if authorization is None or not ours or isinstance(request.body, Multipart):
                raise
            fresh = self._renewed(request, authorization)
            if fresh is None:
                raise
        logger.debug("token refused, trying the one that took its place")
        return self._accepted(self._signed(request)[0], fresh, accept)

    def _accepted(self, request: Request, authorization: str | None, accept: Accept) -> Response:
        response = self._send(request, authorization)
        if accept(response):
            return response
        with response:
            try:
                body = response.read(_MAX_ERROR_BODY)
            except TransportError:
                body = b""
        raise _responses.status_error(request, response.status, response.headers, body)

    def _send(self, request: Request, authorization: str | None) -> Response:
        started = time.monotonic()
        channel = self._channel if request.plane == "data" else None
        response = self._transport.send(request, authorization, channel)
        logger.debug(
            "answer %s %s://%s%s status=%d request_id=%s seconds=%.3f",
            request.method,
            request.endpoint.scheme,
            request.endpoint.netloc,
            request.target,
            response.status,
            response.headers.get("x-request-id", "-"),
            time.monotonic() - started,
        )
        return response

    def _signed(self, request: Request) -> tuple[Request, str | None]:
        """The request and the token for one attempt."""
        return request, self._tokens.token_for(request.endpoint)

    def _renewed(self, request: Request, refused: str) -> str | None:
        """Another token than the one that was refused, if there is one by now."""
        return self._tokens.instead_of(refused, request.endpoint)

    def _broken(self, request: Request, error: TransportError, began: float) -> bool:
        """Whether a request that got no answer can be made again, for a reason of its own."""
        return False


def read_all(response: Response) -> bytes:
    """The whole body of an answer."""
    body = response.read(MAX_ANSWER)
    if len(body) > MAX_ANSWER:
        raise InvalidResponseError(f"the answer is longer than {MAX_ANSWER} bytes")
    return body


def _backoff(attempt: int) -> float:
    import random  # noqa: PLC0415  (needed rarely, slow to import)

    # Jitter, so that clients that failed together do not come back together.
    return min(_BACKOFF * 2.0**attempt, _MAX_BACKOFF) * random.uniform(0.5, 1.0)  # noqa: S311


def connection_error(request: Request, error: TransportError) -> APIConnectionError:
    """The exception for a request that got no answer."""
    where = str(request.endpoint)
    if error.kind == "timeout":
        return APITimeoutError(
            f"{where} did not answer within {request.read_timeout:g} s; "
            f"raise the option {request.timeout_option}="
        )
    if error.kind == "connect-timeout":
        return APITimeoutError(
            f"no connection to {where} in time; raise the option connect_timeout=, "
            f"or check {_URL_SETTINGS[request.plane]}"
        )
    if error.kind == "lost":
        return APIConnectionError(f"the connection to {where} was lost: {error}")
    hint = f"set {_URL_SETTINGS[request.plane]} if AgentCube is elsewhere"
    if request.endpoint.is_loopback:
        hint = f"is `agentcube up` running? Otherwise {hint}"
    return APIConnectionError(f"cannot connect to {where}: {error}; {hint}")


def log_verbosely() -> None:
    """Log what clients do, to stderr if the program has set up no logging."""
    logger.setLevel(logging.DEBUG)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
