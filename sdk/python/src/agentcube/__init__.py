"""Computers for code that you do not want to run on yours.

Example::

    from agentcube import CodeInterpreterClient

    with CodeInterpreterClient() as client:
        print(client.run_code("python", "print('hello')"))
"""

from ._audit import AuditRecord
from ._client import CodeInterpreterClient
from ._results import Checkpoint, CommandResult, FileInfo
from ._version import __version__
from .exceptions import (
    AgentCubeError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CheckpointExistsError,
    CheckpointNotFoundError,
    CheckpointUnusableError,
    ClientClosedError,
    CommandExecutionError,
    CommandTimeoutError,
    ConfigurationError,
    ConflictError,
    DiskFullError,
    FileTransferError,
    InternalServerError,
    InvalidResponseError,
    NotFoundError,
    NotSupportedError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    SessionEndedError,
    SessionPausedError,
    UnsupportedLanguageError,
)

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AgentCubeError",
    "AuditRecord",
    "AuthenticationError",
    "BadRequestError",
    "Checkpoint",
    "CheckpointExistsError",
    "CheckpointNotFoundError",
    "CheckpointUnusableError",
    "ClientClosedError",
    "CodeInterpreterClient",
    "CommandExecutionError",
    "CommandResult",
    "CommandTimeoutError",
    "ConfigurationError",
    "ConflictError",
    "DiskFullError",
    "FileInfo",
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
    "__version__",
]
