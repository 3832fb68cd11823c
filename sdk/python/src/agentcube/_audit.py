"""The record that the agent in a sandbox keeps of what reached it encrypted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from .exceptions import InvalidResponseError

_ORIGIN = "0" * 64


@dataclass(frozen=True)
class AuditRecord:
    """A session's own record, checked: nobody in between has changed or shortened it.

    Attributes:
        entries: The requests, oldest first, as dictionaries: ``time``, ``requestId``, ``method``,
            ``path``, ``status``, ``seconds``, ``input`` and ``output`` with ``bytes`` and
            ``sha256``, and ``signature``, with which this client has signed the request.
        head: The number of the last line and its SHA-256, as ``number:hash``.
        kept: The number of the oldest line that the agent still has; 0 when it has none.
        text: The record as it came, for ``agentcube audit verify --record``.
    """

    entries: list[dict[str, Any]]
    head: str
    kept: int
    text: str = field(repr=False)


def parse(text: str, certificate: str, session_id: str) -> AuditRecord:
    """Read a record and check it by the certificate of the session's agent, in PEM.

    Raises:
        InvalidResponseError: It is not the record of this session, or is not whole.
    """
    *lines, last = text.splitlines() or [""]
    statement = _statement(_line(last).get("statement"), certificate, session_id)
    number, digest = 0, _ORIGIN
    entries: list[dict[str, Any]] = []
    for at, line in enumerate(lines):
        entry = _line(line)
        if at == 0 and entry.get("seq") != 1:  # it begins later
            number, digest = int(entry.get("seq", 0)) - 1, str(entry.get("prev"))
        if entry.get("seq") != number + 1 or entry.get("prev") != digest:
            raise _broken(f"line {number + 1} does not follow the one before")
        number, digest = number + 1, hashlib.sha256(line.encode("utf-8")).hexdigest()
        entries.append(entry)
    signed = statement["head"]
    if lines and (number, digest) != (signed["seq"], signed["hash"]):
        raise _broken("it does not end as the sandbox has signed")
    return AuditRecord(
        entries=entries,
        head=f"{signed['seq']}:{signed['hash'] or _ORIGIN}",
        kept=int(statement.get("kept", 0)),
        text=text,
    )


def _broken(why: str) -> InvalidResponseError:
    return InvalidResponseError(f"the session's record cannot be trusted: {why}")


def _line(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _broken("a line is not a JSON object")
    return value


def _statement(token: object, certificate: str, session_id: str) -> dict[str, Any]:
    import jwt  # noqa: PLC0415
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey  # noqa: PLC0415

    if not isinstance(token, str):
        raise _broken("it has no statement")
    key = x509.load_pem_x509_certificate(certificate.encode("ascii")).public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise _broken("the session's certificate is of another kind")
    try:
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=["ES256"], issuer="picod")
        head = claims["head"]
        session = claims["sid"]
        sound = isinstance(head["seq"], int) and isinstance(head["hash"], str)
    except (jwt.InvalidTokenError, KeyError, TypeError) as error:
        raise _broken("its statement is not signed by the sandbox") from error
    if not sound or session != session_id:
        raise _broken("its statement is of another session")
    return claims
