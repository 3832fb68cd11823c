"""Answers as data: from status, headers and body to a value or an exception, without I/O."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ._requests import Request
from ._results import Checkpoint, CommandResult, FileInfo
from ._secure import Secure
from ._settings import check_name
from .exceptions import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CheckpointExistsError,
    CheckpointNotFoundError,
    CheckpointUnusableError,
    CommandExecutionError,
    CommandTimeoutError,
    ConfigurationError,
    ConflictError,
    DiskFullError,
    InternalServerError,
    InvalidResponseError,
    NotFoundError,
    NotSupportedError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    SessionEndedError,
    SessionPausedError,
)

logger = logging.getLogger("agentcube")

_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: PayloadTooLargeError,
    429: RateLimitError,
    501: NotSupportedError,
    507: DiskFullError,
}
_BY_CODE: dict[tuple[int, str], type[APIStatusError]] = {
    (404, "CHECKPOINT_NOT_FOUND"): CheckpointNotFoundError,
    (409, "SESSION_PAUSED"): SessionPausedError,
    (409, "CHECKPOINT_EXISTS"): CheckpointExistsError,
    (410, "SESSION_ENDED"): SessionEndedError,
    (410, "CHECKPOINT_UNUSABLE"): CheckpointUnusableError,
    (410, ""): SessionEndedError,  # of a server that gives no codes
}
# How PicoD says that it found no shell; a shell's own "not found" reads differently.
_NO_SHELL = re.compile(r'exec: "sh":|fork/exec \S*/sh:')
_MAX_TEXT = 2000  # characters of a server's error that go into a message
# How servers say that a signature is too old, or of a time that has not come. That it was
# "used before" is not about clocks.
_OF_TIME = re.compile(
    r"\b(clocks?|expired|not valid yet|used before issued|before the agent began)\b", re.IGNORECASE
)
_CLOCK_LEEWAY = 30  # seconds; where the server speaks of time
_CLOCK_LEEWAY_UNSAID = 55  # where it does not say why; servers tolerate 60
_SERVER_ERRORS = 500


@dataclass(frozen=True)
class Created:
    """A new session, and the template that the server says it was made from.

    Attributes:
        variables: How many it has of those that it was to be given; servers that know
            none do not say.
        files: Likewise.
        secure: How to reach it with encryption from end to end, where that can be.
    """

    id: str
    namespace: str | None = None
    name: str | None = None
    variables: int = 0
    files: int = 0
    secure: Secure | None = None


def status_error(
    request: Request, status: int, headers: Mapping[str, str], body: bytes
) -> APIStatusError:
    """The exception for an answer that is not a success. Header names are lower-case."""
    fields = _error_fields(body)
    # PicoD's "code" repeats the status for its older clients; its stable code is "reason".
    code = _text(fields, "reason") or _text(fields, "code")
    fate = _text(fields, "fate")
    request_id = _text(fields, "requestId") or headers.get("x-request-id")

    text = _text(fields, "error") or _text(fields, "message") or _plain(body)
    parts = [text or "no reason given"]
    detail = _text(fields, "detail")
    if detail:
        parts.append(f"({detail})")
    if fate:
        parts.append(f"(fate: {fate})")
    if hint := _text(fields, "hint"):
        parts.append(f"- {hint}")
    if location := headers.get("location"):
        parts.append(f"(redirected to {location}, which the SDK does not follow)")
    if status == 401:  # noqa: PLR2004
        parts.append(_clock_hint(headers, text, detail))
    where = f"[{request.method} {request.endpoint}, HTTP {status}"
    where += f", {code}" if code else ""
    where += f", request {request_id}]" if request_id else "]"
    message = f"{' '.join(filter(None, parts))[:_MAX_TEXT]} {where}"

    known = code or ("-" if request.of_agent else "")  # an agent's own answer is not a server's
    kind = _BY_CODE.get((status, known)) or _BY_STATUS.get(status)
    if kind is None:
        kind = InternalServerError if status >= _SERVER_ERRORS else APIStatusError
    error = kind(message, request_id=request_id, status=status, code=code)
    if isinstance(error, SessionEndedError):
        error.fate = fate
    if isinstance(error, RateLimitError):
        error.retry_after = retry_after(headers)
    return error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After header, which is a number or a date."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    date = _timestamp(value)
    return None if date is None else max(0.0, date - time.time())


def created(request: Request, body: bytes) -> Created:
    """The answer to a create request."""
    return _created(request, _object(request, body))


def forked(request: Request, body: bytes, count: int) -> list[Created]:
    """The answer to a request for so many forks."""
    sessions = _object(request, body).get("sessions")
    if not isinstance(sessions, list) or len(sessions) != count:
        raise _invalid(request, f"it does not hold {count} sessions")
    if not all(isinstance(session, dict) for session in sessions):
        raise _invalid(request, "one of its sessions is malformed")
    return [_created(request, session) for session in sessions]


@dataclass(frozen=True)
class Described:
    """What a session is, as far as a client of it has to know.

    Attributes:
        resumed_at: When it last went on after a pause, in seconds of the epoch; 0 if never.
    """

    namespace: str
    name: str
    state: str
    fate: str | None
    reason: str | None
    resumed_at: float
    secure: Secure | None


def described(request: Request, body: bytes) -> Described:
    """The description of a session."""
    fields = _object(request, body)
    namespace, name = _template(request, fields)
    try:
        at = datetime.fromisoformat((_text(fields, "resumedAt") or "").replace("Z", "+00:00"))
        resumed_at = at.timestamp()
    except ValueError:
        resumed_at = 0.0
    return Described(
        namespace,
        name,
        _text(fields, "state") or "",
        _text(fields, "fate"),
        _text(fields, "reason"),
        resumed_at,
        _secure(request, fields),
    )


def check_became(request: Request, now: Described, began: float, failure: str) -> None:
    """Raise what explains that a request to a session broke off, if something does.

    Args:
        request: The request.
        now: What the session is now.
        began: When the request was made, in seconds of the epoch.
        failure: How its connection broke.
    """
    if now.state == "ended":
        status, fields = (
            410,
            {
                "error": f"session {request.session_id} has ended: {now.fate}",
                "code": "SESSION_ENDED",
                "fate": now.fate,
                "hint": now.reason,
            },
        )
    elif now.state == "paused" or now.resumed_at > began:
        status, fields = (
            409,
            {
                "error": "the session was paused while the request ran",
                "code": "SESSION_PAUSED",
            },
        )
    elif "bad certificate" in failure.lower().replace("_", " "):
        status, fields = (
            401,
            {
                "error": "the session is bound to another key",
                "code": "UNAUTHORIZED",
            },
        )
    else:
        return
    raise status_error(request, status, {}, json.dumps(fields).encode("utf-8"))


def _template(request: Request, fields: Mapping[str, Any]) -> tuple[str, str]:
    namespace, name = _text(fields, "namespace") or "", _text(fields, "name") or ""
    try:
        check_name(name, namespace)
    except ConfigurationError:
        raise _invalid(request, "it names no template") from None
    return namespace, name


def checkpoint(request: Request, body: bytes) -> Checkpoint:
    """The answer to a checkpoint request."""
    return _checkpoint(request, _object(request, body))


def checkpoint_list(request: Request, body: bytes) -> list[Checkpoint]:
    """The answer to a request for the list of checkpoints."""
    found = _object(request, body).get("checkpoints")
    if not isinstance(found, list):
        raise _invalid(request, "it has no list of checkpoints")
    return [_checkpoint(request, entry) for entry in found]


def command_result(request: Request, body: bytes) -> CommandResult:
    """The result in the answer to an execute request."""
    fields = _object(request, body)
    code = fields.get("exit_code")
    if isinstance(code, bool) or not isinstance(code, int):
        raise _invalid(request, "it has no exit_code")
    if not isinstance(fields.get("stdout"), str) or not isinstance(fields.get("stderr"), str):
        raise _invalid(request, "it has no stdout or no stderr")
    return CommandResult(fields)


def output(result: CommandResult, command: str | Sequence[str], argv: Sequence[str]) -> str:
    """What a command wrote, if it ended well.

    Raises:
        CommandExecutionError: It did not; CommandTimeoutError: at its time-out.
    """
    if result.exit_code == 0:
        return result.stdout
    if result.timed_out:
        raise CommandTimeoutError(
            result.exit_code,
            result.stderr,
            command,
            stdout=result.stdout,
            hint="Raise the option timeout= to give it longer.",
        )
    hint = ""
    if isinstance(command, str) and _NO_SHELL.search(result.stderr):
        hint = "The image has no shell `sh`, which string commands need: pass a list instead."
    raise CommandExecutionError(
        result.exit_code, result.stderr, command, stdout=result.stdout, hint=hint
    )


def file_list(request: Request, body: bytes) -> list[FileInfo]:
    """The entries in the answer to a list request. Old servers send null for none."""
    fields = _object(request, body)
    entries = fields.get("files", ...)
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise _invalid(request, "it has no list of files")
    for entry in entries:
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and isinstance(entry.get("size"), int)
            and isinstance(entry.get("is_dir"), bool)
        ):
            raise _invalid(request, "an entry of its files is malformed")
    if fields.get("truncated"):
        logger.warning("listing is cut at the server's limit entries=%d", len(entries))
    return [FileInfo(entry) for entry in entries]


def _created(request: Request, fields: Mapping[str, Any]) -> Created:
    value = fields.get("sessionId")
    if not isinstance(value, str) or not value:
        raise _invalid(request, "it has no sessionId")
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise _invalid(request, "its sessionId is malformed")
    session = fields.get("session")
    described = session if isinstance(session, dict) else {}
    variables, files = fields.get("variables"), fields.get("files")
    return Created(
        value,
        _text(described, "namespace"),
        _text(described, "name"),
        variables if isinstance(variables, int) else 0,
        files if isinstance(files, int) else 0,
        _secure(request, described),
    )


def _secure(request: Request, described: Mapping[str, Any]) -> Secure | None:
    fields = described.get("secure")
    if fields is None:
        return None
    name = certificate = None
    if isinstance(fields, dict):
        name, certificate = fields.get("serverName"), fields.get("certificate")
    if not (isinstance(name, str) and isinstance(certificate, str) and name and certificate):
        # An offer that cannot be read is none to go on without.
        raise _invalid(request, "what it says of encryption is malformed")
    return Secure(name, certificate)


def _checkpoint(request: Request, entry: object) -> Checkpoint:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise _invalid(request, "a checkpoint in it has no name")
    return Checkpoint(entry)


def _object(request: Request, body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise _invalid(request, "it is not JSON") from None
    if not isinstance(value, dict):
        raise _invalid(request, "it is not a JSON object")
    return value


def _invalid(request: Request, why: str) -> InvalidResponseError:
    return InvalidResponseError(
        f"{request.endpoint} does not answer like AgentCube: {why} "
        f"[{request.method} {request.target.partition('?')[0]}]"
    )


def _error_fields(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def _plain(body: bytes) -> str:
    text = body.decode("utf-8", "replace").strip()
    return "" if text.startswith(("<", "{")) else text


def _clock_hint(headers: Mapping[str, str], text: str, detail: str | None) -> str:
    """What to say where a signature was refused and the clocks differ; else nothing."""
    if _OF_TIME.search(f"{text} {detail or ''}"):
        leeway = _CLOCK_LEEWAY
    elif detail is None:
        leeway = _CLOCK_LEEWAY_UNSAID
    else:
        return ""  # there is another reason
    server = _timestamp(headers.get("date", ""))
    skew = 0 if server is None else round(time.time() - server)
    if abs(skew) <= leeway:
        return ""
    side = "ahead of" if skew > 0 else "behind"
    return (
        f"- the clock of this machine is {abs(skew)} s {side} the server's, and what is signed "
        "carries the time: set the clocks"
    )


def _timestamp(http_date: str) -> float | None:
    # Imported here, as few programs ever need it, and slow to import.
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    try:
        return parsedate_to_datetime(http_date).timestamp()
    except (TypeError, ValueError, IndexError):
        return None
