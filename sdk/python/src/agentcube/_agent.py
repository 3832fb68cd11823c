"""The client of an agent: HTTP requests to a server of your own in a session."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import _invocations
from ._agent_session import AgentSession, AgentStream
from ._calls import log_verbosely
from ._settings import Timeouts, TokenProvider, require_seconds, resolve
from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_TTL = 3600  # of no effect: the template decides
_ID = re.compile(r"[\x21-\x7e]+")


class AgentRuntimeClient:
    """A session of an agent: a server of your own in a sandbox, and its state.

    The session begins at its first use: with the first call, or on entering a ``with`` block,
    when the server in it takes connections. Leaving the block, like :meth:`close`, lets go of the
    session, which waits for whoever attaches to it with ``session_id``, until its idle time-out.
    :meth:`stop` ends it.

    The session is its owner's: whoever has the token that it was made with. Neither that token
    nor any other credential of AgentCube is sent to the agent. The client may be used from
    several threads.

    Args:
        agent_name: The template (``AgentRuntime``) to make the session from.
        namespace: The namespace of the template.
        router_url: The data plane. Default: ``ROUTER_URL``, else ``http://localhost:8080``.
        verbose: Log what the client does to the logger ``agentcube``, and to stderr if the
            program has set up no logging. Tokens, payloads and answers are never logged.
        session_id: Use this session instead of a new one.
        timeout: Seconds to wait for the session to begin, and for the agent to answer or, within
            an answer, to go on.
        connect_timeout: Seconds to wait for a connection.
        auth_token: The bearer token. Default: as for :class:`CodeInterpreterClient`.
        auth: Gives the bearer token, before each request; any object with a method
            ``get_token()``. It goes before ``auth_token``.
        workload_manager_url: The control plane, which only :meth:`stop`, :meth:`pause` and
            :meth:`resume` need. Default: ``WORKLOAD_MANAGER_URL`` or ``WORKLOADMANAGER_URL``,
            else ``http://localhost:8080``.
        control_timeout: Seconds to wait for the session to be deleted.
        max_retries: How often to try again where that cannot do anything twice: a refused
            connection, and the beginning of the session when the server is busy.

    Raises:
        ConfigurationError: A setting is malformed.
        TypeError: A setting has the wrong type.
    """

    def __init__(
        self,
        agent_name: str,
        namespace: str = "default",
        router_url: str | None = None,
        verbose: bool = False,
        session_id: str | None = None,
        timeout: float = 120,
        connect_timeout: float = 5,
        auth_token: str | None = None,
        auth: TokenProvider | None = None,
        *,
        workload_manager_url: str | None = None,
        control_timeout: float = 30.0,
        max_retries: int = 3,
    ) -> None:
        if session_id is not None and not isinstance(session_id, str):
            raise TypeError(f"session_id is a string, not {type(session_id).__name__}")
        if session_id is not None and not _ID.fullmatch(session_id):
            raise ConfigurationError("session_id is empty, or holds blanks or odd characters")
        require_seconds(timeout, "timeout")
        settings = resolve(
            agent_name,
            namespace,
            _TTL,
            workload_manager_url,
            router_url,
            auth_token,
            Timeouts(connect_timeout, timeout, control_timeout, timeout),
            max_retries,
            auth=auth,
        )
        if verbose:
            log_verbosely()
        self._session = AgentSession(settings, session_id)
        weakref.finalize(self, self._session.hang_up)

    def __repr__(self) -> str:
        settings = self._session.settings
        state = "closed" if self._session.is_closed else self._session.known_id or "not started"
        return f"<{type(self).__name__} {settings.namespace}/{settings.name}: {state}>"

    def __reduce__(self) -> str:
        raise TypeError(
            "a client cannot be pickled; another process attaches to its session with session_id="
        )

    def __enter__(self) -> Self:
        """Begin the session.

        Raises:
            AgentCubeError: It could not be made.
        """
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the session, which goes on; see :meth:`stop`."""
        self.close()

    @property
    def session_id(self) -> str:
        """The id of the session; asking for it begins the session if need be.

        It stays known after :meth:`close` and :meth:`stop`.

        Raises:
            AgentCubeError: The session could not be made.
        """
        return self._session.known_id or self._session.ensure()

    def start(self) -> None:
        """Begin the session now. Does nothing if it has begun.

        The agent is asked for ``/``, and whatever it answers counts.

        Raises:
            APIConnectionError: AgentCube cannot be reached.
            APIStatusError: It refused: no such template, bad token, no room, or the agent's server
                did not come to listen.
            ClientClosedError: The client was closed before.
        """
        self._session.ensure()

    def invoke(
        self,
        payload: object,
        timeout: float | None = None,
        path: str = "",
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request to the agent and return its answer: the value of JSON, or else text.

        Args:
            payload: What to send: bytes as they are, None as no body, all else as JSON.
            timeout: Seconds to wait for the answer. Default: the client's.
            path: The path, and query, as the agent sees it; ``/`` if empty.
            method: ``"POST"``, ``"GET"``, ``"PUT"``, ``"PATCH"``, ``"DELETE"``, ...
            headers: More headers. The agent gets no ``Authorization``: give it credentials of its
                own in another header.

        Raises:
            SessionEndedError: The session has ended.
            APIStatusError: The agent, or AgentCube, answered with an error. Only AgentCube's have
                a ``code``, unless the agent gives its own one.
            AgentCubeError: Any other failure.
        """
        with self._open(payload, timeout, path, method, headers) as answer:
            return answer.value()

    def stream(
        self,
        payload: object = None,
        timeout: float | None = None,
        path: str = "",
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> AgentStream:
        """Send a request to the agent and read its answer as it comes.

        Takes the arguments of :meth:`invoke` and raises the same exceptions, here or while the
        answer is read; ``timeout`` is how long the agent may send nothing. Use what it returns in
        a ``with`` block::

            with client.stream({"prompt": "hello"}, path="chat") as answer:
                for line in answer.lines():
                    print(line)
        """
        return self._open(payload, timeout, path, method, headers)

    def pause(self) -> None:
        """Put the session to sleep: memory and files go to disk. The next call wakes it.

        Raises:
            AgentCubeError: It could not be paused; it runs on.
        """
        self._session.change("pause")

    def resume(self) -> None:
        """Wake the session, so that the next call need not wait for it.

        Raises:
            AgentCubeError: It could not be woken; it sleeps on.
        """
        self._session.change("resume")

    def stop(self) -> None:
        """End the session, whoever else uses it, and close the client.

        A session that is gone, or never began, already counts as ended. After a failure it can be
        called again.

        Raises:
            AgentCubeError: The session could not be deleted; it ends at its time-out.
        """
        self._session.end()

    def close(self) -> None:
        """Close the connections. The session goes on until its idle time-out."""
        self._session.let_go()

    def _open(
        self,
        payload: object,
        timeout: float | None,
        path: str,
        method: str,
        headers: Mapping[str, str] | None,
    ) -> AgentStream:
        settings = self._session.settings
        if timeout is None:
            timeout = settings.timeouts.transfer
        require_seconds(timeout, "timeout")
        # Refused before a session is made for it.
        request = _invocations.invoke(settings, "", method, path, payload, headers, timeout)
        session_id = self._session.ensure()
        request = _invocations.invoke(settings, session_id, method, path, payload, headers, timeout)
        return AgentStream(request, self._session.open(request))
