"""A client and its session: how it begins, sleeps, is copied and ends."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, TypeVar

from ._audit import AuditRecord
from ._results import Checkpoint
from ._session import Session
from ._settings import check_checkpoint, check_ttl
from .exceptions import AgentCubeError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

logger = logging.getLogger("agentcube")

_MAX_FORKS = 64

# Not Self, which Python has at run time since 3.11 only.
OwnerT = TypeVar("OwnerT", bound="SessionOwner")


class SessionOwner:
    """What a client does with its session as a whole."""

    _session: Session

    def _own(self, session: Session) -> None:
        self._session = session
        self._finalizer = weakref.finalize(self, session.abandon)

    def __repr__(self) -> str:
        settings = self._session.settings
        state = "stopped" if self._session.is_closed else self._session.known_id or "not started"
        return f"<{type(self).__name__} {settings.namespace}/{settings.name}: {state}>"

    def __reduce__(self) -> str:
        raise TypeError(
            "a client cannot be pickled; another process attaches to its session with "
            "session_id= and private_key=, see export_key()"
        )

    def __enter__(self) -> Self:
        """Begin the session.

        Raises:
            AgentCubeError: It could not be created.
        """
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the session, also when the block raised; let go of one that was made elsewhere.

        Who made a session ends it: others, which are attached to it by ``session_id``, leave
        it alone unless they call :meth:`stop`. A failed deletion is raised; if the block
        raised, that goes first and the failure is logged and noted on it.
        """
        # In a forked process the session is that of the parent, which still uses it.
        if self._session.is_forked or self._session.is_attached:
            self.detach()
            return
        try:
            self.stop()
        except AgentCubeError as error:
            if exc is None:
                raise
            logger.warning("session was not deleted id=%s: %s", self._session.known_id, error)
            if hasattr(exc, "add_note"):
                exc.add_note(f"AgentCube session {self._session.known_id} was not deleted: {error}")

    @property
    def session_id(self) -> str:
        """The id of the session; asking for it begins the session if need be.

        It stays known after :meth:`stop`.

        Raises:
            AgentCubeError: The session could not be created.
        """
        return self._session.known_id or self._session.ensure()

    def start(self) -> None:
        """Begin the session now. Does nothing if it has begun.

        Raises:
            APIConnectionError: AgentCube cannot be reached.
            APIStatusError: It refused: no such template, bad token, no room, ...
            ClientClosedError: The client was stopped before.
        """
        self._session.ensure()

    def stop(self) -> None:
        """End the session and free all it holds. Calling it again does nothing.

        It ends a session that was made elsewhere as well, whoever else uses it.
        A session that is gone already counts as ended. After a failure it can be called again.

        Raises:
            AgentCubeError: The session could not be deleted; it ends at its time-out.
        """
        self._finalizer.detach()
        self._session.end()

    def detach(self) -> None:
        """Let go of the session without ending it: it lives until its time-out.

        The client cannot be used afterwards.
        """
        self._finalizer.detach()
        self._session.let_go()

    def export_key(self) -> str:
        """The private key of the session: PEM text (PKCS#8), not encrypted.

        Whoever holds it and reaches the Router can do all that this client can: run code in
        the session, read and change its files. Whoever has the owner's token besides can copy
        it. That lasts as long as the session does: a key is never taken back or replaced, and
        its use does not show who used it. Hand it to another process over a channel that
        nobody else reads, such as a pipe, keep it out of logs and arguments, and let that
        process use it in ``CodeInterpreterClient(session_id=..., private_key=...)``.

        Begins no session, and can be called after :meth:`detach`. Forks have other keys.

        Raises:
            ConfigurationError: The client has no key: it was attached to a session without
                one, for which the Router signs.
        """
        return self._session.export_key()

    def pause(self) -> None:
        """Put the session to sleep: memory and files go to disk, and it costs nothing else.

        The next call wakes it, and what ran in it goes on. Calls under way in other threads
        raise ``SessionPausedError``. Does nothing if it sleeps already. It stays asleep
        until its longest life is over, however long nobody calls.

        Raises:
            DiskFullError: There is no room for it; it runs on.
            NotSupportedError: The server cannot do that.
            AgentCubeError: Any other failure.
        """
        self._session.change("pause")

    def resume(self) -> None:
        """Wake the session, so that the next call need not wait for it.

        Does nothing if it is awake. Nobody needs it: every call wakes the session.

        Raises:
            RateLimitError: The server has no room for it now; it sleeps on.
            AgentCubeError: Any other failure.
        """
        self._session.change("resume")

    def fork(self: OwnerT, n: int = 1, *, ttl: int | None = None) -> list[OwnerT]:  # noqa: PYI019
        """Make new sessions that begin with the memory and files that this one has now.

        What runs in this session runs in each of them, and from then on they have nothing in
        common. Each has a client and a key of its own, and is to be stopped like any other:
        stopping this client does not stop them. Either all are made or none.

        Args:
            n: How many, 1 to 64.
            ttl: Their longest life, in seconds. Default: as for this one, counted from now.

        Raises:
            RateLimitError: The server has no room for so many.
            NotSupportedError: The server cannot do that.
            AgentCubeError: Any other failure.
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"n is a whole number, not {type(n).__name__}")
        if not 1 <= n <= _MAX_FORKS:
            raise ValueError(f"n is from 1 to {_MAX_FORKS}, not {n}")
        if ttl is not None:
            check_ttl(ttl)
        forks = []
        for session in self._session.fork(n, self._session.settings.ttl if ttl is None else ttl):
            # A copy of this object, but for what it owns; what subclasses keep, it shares.
            client = object.__new__(type(self))
            client.__dict__.update(self.__dict__)
            client._own(session)
            forks.append(client)
        return forks

    def checkpoint(self, name: str) -> Checkpoint:
        """Keep the memory and files of the session, as they are now, under a name.

        The session goes on. ``CodeInterpreterClient(checkpoint=name)`` begins a session from
        what was kept, as often as wanted, also when this one has ended. The server removes
        what was not used for long.

        Args:
            name: 1 to 128 letters, digits, ``.``, ``_`` and ``-``.

        Raises:
            CheckpointExistsError: The name is taken.
            DiskFullError: There is no room for it.
            NotSupportedError: The server cannot do that.
            AgentCubeError: Any other failure.
        """
        check_checkpoint(name)
        return self._session.checkpoint(name)

    def audit_record(self, after: int = 0) -> AuditRecord:
        """What the agent in the sandbox has recorded of the session: every request, once.

        It is checked: the agent has signed where it ends, and each line is tied to the one
        before, so that whoever is in between can neither change nor shorten it. It holds
        digests of what was sent and answered, and neither of the two. The agent keeps the last
        4 MiB of lines, some thousands; who needs all of a long session fetches them in time.

        Args:
            after: Leave out what is up to and with the line of this number. ``head`` of the
                record that was fetched last begins with it.

        Raises:
            NotSupportedError: The session is not reached encrypted; the server has the record.
            NotFoundError: The agent is too old to keep one.
            InvalidResponseError: The record is not whole, or not of this session.
            AgentCubeError: Any other failure.
        """
        if isinstance(after, bool) or not isinstance(after, int):
            raise TypeError(f"after is a whole number, not {type(after).__name__}")
        if after < 0:
            raise ValueError(f"after is 0 or more, not {after}")
        return self._session.audit_record(after)

    def list_checkpoints(self) -> list[Checkpoint]:
        """All checkpoints of this caller, newest first. Begins no session.

        Raises:
            AgentCubeError: They could not be listed.
        """
        return self._session.checkpoints()

    def delete_checkpoint(self, name: str) -> None:
        """Remove a checkpoint; sessions that began from it stay. Begins no session.

        Raises:
            CheckpointNotFoundError: There is none of that name.
            AgentCubeError: Any other failure.
        """
        check_checkpoint(name)
        self._session.delete_checkpoint(name)
