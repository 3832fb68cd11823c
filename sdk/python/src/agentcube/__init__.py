"""Computers for code that you do not want to run on yours.

Example::

    from agentcube import CodeInterpreterClient

    with CodeInterpreterClient() as client:
        print(client.run_code("python", "print('hello')"))
"""

from ._agent import AgentRuntimeClient
from ._agent_session import AgentStream
from ._audit import AuditRecord
from ._client import CodeInterpreterClient
from ._results import Checkpoint, CommandResult, FileInfo
from ._settings import TokenProvider
from ._tokens import ServiceAccountAuth, TokenAuth
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
    "AgentRuntimeClient",
    "AgentStream",
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
    "ServiceAccountAuth",
    "SessionEndedError",
    "SessionPausedError",
    "TokenAuth",
    "TokenProvider",
    "UnsupportedLanguageError",
    "__version__",
]
