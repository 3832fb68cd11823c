"""Requests to an agent's own server as data, built without any I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ._headers import checked_headers
from ._requests import Request
from ._settings import Settings

SESSION_HEADER = "x-agentcube-session-id"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# What a path may hold as it is; a percent sign is taken for the begin of an escape.
_IN_PATH = "/!$&'()*+,;=:@-._~%"
_IN_QUERY = _IN_PATH + "?[]"


def begin(settings: Settings) -> Request:
    """Ask for nothing, without a session: one is made, and the answer names it."""
    return _request(settings, None, "GET", "", None, {}, settings.timeouts.create)


def invoke(
    settings: Settings,
    session_id: str,
    method: str,
    path: str,
    payload: object,
    headers: Mapping[str, str] | None,
    timeout: float,
) -> Request:
    """Send a payload to the agent: bytes as they are, all else as JSON, None as no body.

    Raises:
        TypeError: The payload has no JSON form, or another argument is of a wrong type.
        ValueError: The payload, path, method or a header is malformed.
    """
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}, not {method!r}")
    given = checked_headers(headers)
    names = {name.lower() for name in given}
    body: bytes | None = None
    if isinstance(payload, bytes):
        body, kind = payload, "application/octet-stream"
    elif payload is not None:
        body, kind = json.dumps(payload, allow_nan=False).encode("utf-8"), "application/json"
    if body is not None and "content-type" not in names:
        given["Content-Type"] = kind
    return _request(settings, session_id, method, _target(path), body, given, timeout)


def parsed(body: bytes) -> Any:
    """The value of an answer: of JSON, or else its text."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def _request(
    settings: Settings,
    session_id: str | None,
    method: str,
    inside: str,
    body: bytes | None,
    headers: dict[str, str],
    timeout: float,
) -> Request:
    if session_id is not None:
        headers[SESSION_HEADER] = session_id
    namespace, name = quote(settings.namespace, safe=""), quote(settings.name, safe="")
    return Request(
        method=method,
        plane="data",
        endpoint=settings.router,
        target=(
            f"{settings.router.prefix}/v1/namespaces/{namespace}"
            f"/agent-runtimes/{name}/invocations/{inside}"
        ),
        read_timeout=timeout,
        timeout_option="timeout",
        headers=headers,
        body=body,
        session_id=session_id or "",
        of_agent=True,
    )


def _target(path: str) -> str:
    if not isinstance(path, str):
        raise TypeError(f"path is a string, not {type(path).__name__}")
    if "#" in path:
        raise ValueError("path holds a '#'; write it as %23")
    path, mark, query = path.lstrip("/").partition("?")
    return quote(path, safe=_IN_PATH) + mark + quote(query, safe=_IN_QUERY)
