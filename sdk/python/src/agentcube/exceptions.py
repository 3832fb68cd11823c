"""Every exception that the SDK raises on purpose.

::

    AgentCubeError
    ├── ConfigurationError          a setting is malformed or missing (also a ValueError)
    ├── ClientClosedError           the client was used after stop() or detach()
    ├── UnsupportedLanguageError    run_code does not know it (also a ValueError)
    ├── APIConnectionError          no answer: refused, unknown host, TLS, connection lost
    │   └── APITimeoutError         no answer in time
    ├── InvalidResponseError        an answer that is not AgentCube's
    ├── FileTransferError           a transfer broke off half-way
    ├── APIStatusError              the server refused
    │   ├── BadRequestError         400
    │   ├── AuthenticationError     401
    │   ├── PermissionDeniedError   403
    │   ├── NotFoundError           404
    │   │   └── CheckpointNotFoundError
    │   ├── ConflictError           409
    │   │   ├── SessionPausedError      the session was paused while the call ran
    │   │   └── CheckpointExistsError   the name is taken
    │   ├── SessionEndedError       410, with the fate of the session
    │   ├── CheckpointUnusableError 410, damaged, or made by another version or machine
    │   ├── PayloadTooLargeError    413
    │   ├── RateLimitError          429, with the time to wait
    │   └── InternalServerError     5xx
    │       ├── NotSupportedError   501
    │       └── DiskFullError       507
    └── CommandExecutionError       the command ran and failed
        └── CommandTimeoutError     the command was stopped at its time-out

Failures of the local disk (a missing file to upload, say) stay the ``OSError``
that Python raises, and arguments of a wrong type or value are ``TypeError`` and
``ValueError``. No exception ever holds a key or a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AgentCubeError",
    "AuthenticationError",
    "BadRequestError",
    "CheckpointExistsError",
    "CheckpointNotFoundError",
    "CheckpointUnusableError",
    "ClientClosedError",
    "CommandExecutionError",
    "CommandTimeoutError",
    "ConfigurationError",
    "ConflictError",
    "DiskFullError",
    "FileTransferError",
    "InternalServerError",
    "InvalidResponseError",
    "NotFoundError",
    "NotSupportedError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "RateLimitError",
    "SessionEndedError",
    "SessionPausedError",
    "UnsupportedLanguageError",
]

# How much of a command's stderr goes into the message; all of it is in .stderr.
_MESSAGE_STDERR_CHARS = 2000


class AgentCubeError(Exception):
    """Base of all exceptions of the SDK.

    Attributes:
        message: What went wrong, in words.
        request_id: The id under which the server's log knows the request, if it answered.
        status: The HTTP status, if the server answered.
        code: The server's stable error code (``"SESSION_NOT_FOUND"``, ...), if it gave one.
    """

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.status = status
        self.code = code


class ConfigurationError(AgentCubeError, ValueError):
    """A setting of the client is malformed, or missing for what is asked of it."""


class ClientClosedError(AgentCubeError):
    """The client was used after ``stop()`` or ``detach()``."""


class UnsupportedLanguageError(AgentCubeError, ValueError):
    """``run_code`` was given a language it does not know; the message lists those it knows."""


class APIConnectionError(AgentCubeError):
    """The server could not be reached, or the connection was lost before it answered."""


class APITimeoutError(APIConnectionError):
    """The server did not answer in time; the message names the option to raise."""


class InvalidResponseError(AgentCubeError):
    """The answer is not one that AgentCube gives: another program may listen on that address."""


class FileTransferError(AgentCubeError):
    """An upload or a download broke off half-way. No half-written local file is left."""


class APIStatusError(AgentCubeError):
    """The server refused the request."""


class BadRequestError(APIStatusError):
    """400: the server found the request malformed."""


class AuthenticationError(APIStatusError):
    """401: no credentials, or none that are valid."""


class PermissionDeniedError(APIStatusError):
    """403: the caller is known and may not do this."""


class NotFoundError(APIStatusError):
    """404: no such template, session, checkpoint or file; ``code`` tells them apart."""


class CheckpointNotFoundError(NotFoundError):
    """404: the caller has no checkpoint of that name."""


class ConflictError(APIStatusError):
    """409: the state of the session does not allow this now."""


class SessionPausedError(ConflictError):
    """409: the session was paused while the call ran.

    The next call wakes it. What ran in the background goes on then; the command of this
    call, whose output nobody would get, does not.
    """


class CheckpointExistsError(ConflictError):
    """409: there is a checkpoint of that name already."""


class SessionEndedError(APIStatusError):
    """410: the session has ended.

    Attributes:
        fate: Why: ``"deleted"``, ``"idle"``, ``"expired"``, ``"out-of-memory"``,
            ``"host-lost"`` or ``"failed"``; None when the server did not say.
    """

    fate: str | None = None


class CheckpointUnusableError(APIStatusError):
    """410: no session can begin from the checkpoint.

    It is damaged, or was made by another version of AgentCube or on another kind of machine.
    Delete it, and make a new one.
    """


class PayloadTooLargeError(APIStatusError):
    """413: the request body is over the server's limit."""


class RateLimitError(APIStatusError):
    """429: the server is full.

    Attributes:
        retry_after: Seconds to wait before trying again; None when the server did not say.
    """

    retry_after: float | None = None


class InternalServerError(APIStatusError):
    """5xx: the server failed."""


class NotSupportedError(InternalServerError):
    """501: what makes the sandboxes there cannot do that. Or the server is too old for it."""


class DiskFullError(InternalServerError):
    """507: the disk of the sandbox is full, or the server's, on which it is kept."""


class CommandExecutionError(AgentCubeError):
    """The command ran and ended with a non-zero exit code.

    Attributes:
        exit_code: The exit code; -1 when a signal ended the command.
        stdout: All that the command wrote before it ended.
        stderr: The same for its error output.
        command: What was asked for.
    """

    def __init__(
        self,
        exit_code: int,
        stderr: str = "",
        command: str | Sequence[str] | None = None,
        *,
        stdout: str = "",
        hint: str = "",
        request_id: str | None = None,
    ) -> None:
        tail = stderr.strip()
        if len(tail) > _MESSAGE_STDERR_CHARS:
            tail = "..." + tail[-_MESSAGE_STDERR_CHARS:]
        message = f"Command failed (exit {exit_code}): {tail}"
        if hint:
            message += f"\n{hint}"
        super().__init__(message, request_id=request_id)
        self.exit_code = exit_code
        self.stderr = stderr
        self.stdout = stdout
        self.command = command

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        # The default would call the constructor with the message alone.
        return _restore_command_error, (type(self),), {**self.__dict__, "args": self.args}


class CommandTimeoutError(CommandExecutionError):
    """The command was stopped at its time-out; ``stdout`` and ``stderr`` hold what it wrote."""


def _restore_command_error(cls: type[CommandExecutionError]) -> CommandExecutionError:
    return cls.__new__(cls)
