"""Headers that callers add to requests."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# Who calls, for which session, and where a request ends, is said by the SDK.
_NOT_THEIRS = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "transfer-encoding",
        "x-agentcube-session-id",
    }
)


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Refuse headers that cannot be sent, or are not the caller's to set.

    Raises:
        TypeError: Not a mapping of strings.
        ValueError: A malformed name or value, or a header that the SDK sets.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers is a mapping, not {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("names and values of headers are strings")
        if not _NAME.fullmatch(name):
            raise ValueError(f"headers holds a malformed name {name!r}")
        if not _VALUE.fullmatch(value):  # which is not repeated: it may be a secret
            raise ValueError(f"headers holds a malformed value of {name}")
        if name.lower() in _NOT_THEIRS:
            raise ValueError(f"headers cannot set {name}: the SDK does")
    return dict(headers)
