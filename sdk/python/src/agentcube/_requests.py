"""Requests as data: what is sent where, built without any I/O, so that any client can share it."""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from ._code import check_text, duration
from ._forms import FILE_MODE, Multipart
from ._settings import Endpoint, Given, Settings

# The server promises an answer within two seconds of the command's time-out. But a paused
# session is woken first, and may have to wait for room; the network has its share too.
_EXECUTE_GRACE = 30.0
# Content above this is streamed as multipart: base64 makes it a third longer, and older
# servers take bodies of up to 32 MiB.
MAX_JSON_CONTENT = 16 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """One request, complete but for its credentials.

    Attributes:
        target: Path and query, percent-encoded, with the prefix of the base URL.
        body_sha256: Hash of a JSON body, which the signature binds; None for other bodies.
        session_id: The session that a request of the data plane is for; empty for others.
        inside: Path and query of such a request as the sandbox sees them, in the one spelling
            that is signed and sent: every byte of the path but letters, digits, ``-._~`` and
            the slash is percent-encoded.
        agreed_path: Where the holder of the session's key has to agree to a request of the
            control plane: its path without the prefix of the base URL, which is signed.
        of_agent: Whether a program of the user's own may answer, in a way of its own.
        read_timeout: Seconds to wait for the answer, or for progress while streaming.
        timeout_option: The option of the client that ``read_timeout`` comes from.
    """

    method: str
    plane: Literal["control", "data"]
    endpoint: Endpoint
    target: str
    read_timeout: float
    timeout_option: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Multipart | None = field(default=None, repr=False)
    body_sha256: str | None = None
    session_id: str = ""
    inside: str = ""
    agreed_path: str | None = None
    of_agent: bool = False


def create_session(settings: Settings, public_key: str | None, idempotency_key: str) -> Request:
    """Make a session from the template, or the checkpoint, that the settings name."""
    fields: dict[str, object] = {
        "name": settings.name,
        "namespace": settings.namespace,
        "ttl": settings.ttl,
        "metadata": {},
    }
    if settings.checkpoint is not None:
        fields["checkpoint"] = settings.checkpoint
        if not settings.named:
            del fields["name"], fields["namespace"]  # its own
    if public_key is not None:
        fields["publicKey"] = public_key
    if settings.given.env:
        fields["env"] = settings.given.env
    if settings.given.files:
        fields["files"] = [
            {"path": path, "content": base64.b64encode(content).decode("ascii")}
            for path, content in settings.given.files.items()
        ]
    headers = {"Idempotency-Key": idempotency_key}
    return _slow(settings, "/v1/code-interpreter", fields, headers=headers)


def delete_session(settings: Settings, session_id: str) -> Request:
    """End a session."""
    return _control(
        settings, "DELETE", f"/v1/code-interpreter/sessions/{quote(session_id, safe='')}"
    )


def describe_session(settings: Settings, session_id: str) -> Request:
    """Ask what a session is."""
    return _control(settings, "GET", f"/v1/sessions/{quote(session_id, safe='')}")


def change_session(settings: Settings, session_id: str, verb: str) -> Request:
    """Pause or resume a session."""
    return _slow(settings, f"/v1/sessions/{quote(session_id, safe='')}/{verb}", None)


def fork_session(
    settings: Settings, session_id: str, count: int, ttl: int, public_keys: Sequence[str]
) -> Request:
    """Make sessions that begin where this one is; without keys where it has none."""
    fields: dict[str, object] = {"count": count, "ttl": ttl}
    if public_keys:
        fields["publicKeys"] = list(public_keys)
    path = f"/v1/sessions/{quote(session_id, safe='')}/fork"
    return _slow(settings, path, fields, agreed=True)


def checkpoint_session(settings: Settings, session_id: str, name: str) -> Request:
    """Keep the state of a session under a name."""
    path = f"/v1/sessions/{quote(session_id, safe='')}/checkpoints"
    return _slow(settings, path, {"name": name}, agreed=True)


def list_checkpoints(settings: Settings) -> Request:
    """List the caller's checkpoints."""
    return _control(settings, "GET", "/v1/checkpoints")


def delete_checkpoint(settings: Settings, name: str) -> Request:
    """Remove a checkpoint."""
    return _control(settings, "DELETE", f"/v1/checkpoints/{quote(name, safe='')}")


def execute(
    settings: Settings,
    session_id: str,
    argv: Sequence[str],
    timeout: float,
    working_dir: str | None = None,
    env: Mapping[str, str] | None = None,
    script: str | None = None,
) -> Request:
    """Run a command, for at most ``timeout`` seconds; a script is to be removed afterwards.

    Servers that know nothing of that leave the script, and do not say that it is gone.
    """
    fields: dict[str, object] = {"command": list(argv), "timeout": duration(timeout)}
    if working_dir is not None:
        fields["working_dir"] = remote_path(working_dir, "working_dir")
    if env is not None:
        fields["env"] = _checked_env(env)
    if script is not None:
        fields["remove"] = [script]
    return _data(
        settings,
        session_id,
        "POST",
        "/api/execute",
        body=_json(fields),
        read_timeout=timeout + _EXECUTE_GRACE,
        timeout_option="timeout",
    )


def write_file(settings: Settings, session_id: str, path: str, content: bytes) -> Request:
    """Write a file from memory."""
    body = _json(
        {
            "path": path,
            "content": base64.b64encode(content).decode("ascii"),
            "mode": FILE_MODE,
        }
    )
    return _data(settings, session_id, "POST", "/api/files", body=body)


def upload_file(settings: Settings, session_id: str, body: Multipart) -> Request:
    """Write a file from a stream."""
    return _data(
        settings,
        session_id,
        "POST",
        "/api/files",
        body=body,
        read_timeout=settings.timeouts.transfer,
        timeout_option="transfer_timeout",
    )


def download_file(settings: Settings, session_id: str, path: str) -> Request:
    """Read a file."""
    relative = posixpath.normpath(path).lstrip("/")
    return _data(
        settings,
        session_id,
        "GET",
        f"/api/files/{relative}",
        read_timeout=settings.timeouts.transfer,
        timeout_option="transfer_timeout",
    )


def list_files(settings: Settings, session_id: str, path: str) -> Request:
    """List a directory."""
    query = f"path={quote(path, safe='')}"
    return _data(settings, session_id, "GET", "/api/files", query=query)


def audit_record(settings: Settings, session_id: str, after: int) -> Request:
    """Read the session's own record."""
    return _data(settings, session_id, "GET", "/api/audit", query=f"after={after}")


def remote_path(path: str, what: str = "remote_path") -> str:
    """Check a path in the sandbox. Relative ones begin at the workspace.

    Raises:
        TypeError: Not a string.
        ValueError: Empty, with a NUL character, without a UTF-8 form, or leaving the workspace.
    """
    if not isinstance(path, str):
        raise TypeError(f"{what} is a string, not {type(path).__name__}")
    if not path:
        raise ValueError(f"{what} is empty")
    if "\0" in path:
        raise ValueError(f"{what} holds a NUL character")
    check_text(path, what)
    if posixpath.normpath(path).split("/", 1)[0] == "..":
        raise ValueError(f"{what} {path!r} leaves the workspace")
    return path


def given(env: Mapping[str, str] | None, files: Mapping[str, str | bytes] | None) -> Given:
    """Check what a session is to begin with. How much that may be, the server knows.

    Raises:
        TypeError: Not mappings, or of something else.
        ValueError: A name, path or text is malformed.
    """
    if files is not None and not isinstance(files, Mapping):
        raise TypeError(f"files is a mapping, not {type(files).__name__}")
    return Given(
        {} if env is None else _checked_env(env),
        {
            remote_path(path, "path in files"): file_content(content, "content of a file")
            for path, content in (files or {}).items()
        },
    )


def file_content(content: str | bytes, what: str) -> bytes:
    """The bytes of a file; of a text, in UTF-8.

    Raises:
        TypeError: Neither str nor bytes.
        ValueError: A text without a UTF-8 form.
    """
    if isinstance(content, str):
        check_text(content, what)
        return content.encode("utf-8")
    if not isinstance(content, bytes):
        raise TypeError(f"{what} is str or bytes, not {type(content).__name__}")
    return content


def _control(settings: Settings, method: str, path: str) -> Request:
    return Request(
        method=method,
        plane="control",
        endpoint=settings.workload_manager,
        target=settings.workload_manager.prefix + path,
        read_timeout=settings.timeouts.control,
        timeout_option="control_timeout",
    )


def _slow(
    settings: Settings,
    path: str,
    fields: Mapping[str, object] | None,
    *,
    headers: Mapping[str, str] | None = None,
    agreed: bool = False,
) -> Request:
    """A request that makes, moves or copies a whole machine."""
    body = None if fields is None else _json(fields)
    kind = {} if body is None else {"Content-Type": "application/json"}
    return Request(
        method="POST",
        plane="control",
        endpoint=settings.workload_manager,
        target=settings.workload_manager.prefix + path,
        read_timeout=settings.timeouts.create,
        timeout_option="create_timeout",
        headers={**kind, **(headers or {})},
        body=body,
        body_sha256=None if body is None else hashlib.sha256(body).hexdigest(),
        agreed_path=path if agreed else None,
    )


def _data(
    settings: Settings,
    session_id: str,
    method: str,
    path: str,
    *,
    query: str = "",
    body: bytes | Multipart | None = None,
    read_timeout: float | None = None,
    timeout_option: str = "control_timeout",
) -> Request:
    headers = {"x-agentcube-session-id": session_id}
    body_sha256 = None
    if isinstance(body, bytes):
        headers["Content-Type"] = "application/json"
        body_sha256 = hashlib.sha256(body).hexdigest()
    elif body is not None:
        headers["Content-Type"] = body.content_type
    namespace, name = quote(settings.namespace, safe=""), quote(settings.name, safe="")
    inside = quote(path, safe="/") + (f"?{query}" if query else "")
    return Request(
        method=method,
        plane="data",
        endpoint=settings.router,
        target=(
            f"{settings.router.prefix}/v1/namespaces/{namespace}"
            f"/code-interpreters/{name}/invocations{inside}"
        ),
        read_timeout=settings.timeouts.control if read_timeout is None else read_timeout,
        timeout_option=timeout_option,
        headers=headers,
        body=body,
        body_sha256=body_sha256,
        session_id=session_id,
        inside=inside,
    )


def _json(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode("utf-8")


def _checked_env(env: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(env, Mapping):
        raise TypeError(f"env is a mapping, not {type(env).__name__}")
    for key, value in env.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError("names and values of env are strings")
        if not key or "=" in key or "\0" in key + value:
            raise ValueError(f"env holds a malformed entry {key!r}")
        check_text(key + value, "env")
    return dict(env)
