"""The record of a session is believed only if its sandbox has signed it, whole."""

from __future__ import annotations

import datetime as dt
import hashlib
import json

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agentcube import AuditRecord, InvalidResponseError
from agentcube._audit import parse


def _certificate(key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AgentCube session")])
    now = dt.datetime.now(dt.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode("ascii")
    )


KEY = ec.generate_private_key(ec.SECP256R1())
CERTIFICATE = _certificate(KEY)


def _lines(count: int) -> tuple[list[str], dict[str, object]]:
    lines, prev = [], "0" * 64
    for seq in range(1, count + 1):
        entry = {"seq": seq, "prev": prev, "path": f"/é{seq}"}
        line = json.dumps(entry, ensure_ascii=False)
        lines.append(line + "\n")
        prev = hashlib.sha256(line.encode()).hexdigest()
    return lines, {"seq": count, "hash": prev if count else ""}


LINES, HEAD = _lines(3)


def _closing(key: ec.EllipticCurvePrivateKey = KEY, **changes: object) -> str:
    claims = {"iss": "picod", "sid": "s", "head": HEAD, "kept": 1} | changes
    return json.dumps({"statement": jwt.encode(claims, key, algorithm="ES256")}) + "\n"


def _parse(text: str) -> AuditRecord:
    return parse(text, CERTIFICATE, "s")


def test_whole() -> None:
    record = _parse("".join(LINES) + _closing())
    assert [e["path"] for e in record.entries] == ["/é1", "/é2", "/é3"]
    assert record.head == f"3:{HEAD['hash']}"
    assert record.kept == 1
    assert "statement" not in repr(record)


def test_part() -> None:
    assert [e["seq"] for e in _parse("".join(LINES[2:]) + _closing()).entries] == [3]
    assert _parse(_closing()).entries == []
    assert _parse(_closing(head={"seq": 0, "hash": ""}, kept=0)).head == "0:" + "0" * 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "".join(LINES),
        "".join(LINES[:2]) + _closing(),
        LINES[0] + LINES[2] + _closing(),
        LINES[1] + LINES[0] + LINES[2] + _closing(),
        LINES[0].replace("é", "e") + "".join(LINES[1:]) + _closing(),
        "".join(LINES) + _closing(ec.generate_private_key(ec.SECP256R1())),
        "".join(LINES) + _closing(sid="t"),
        "".join(LINES) + _closing(iss="another"),
        "".join(LINES) + _closing(head={"seq": "3", "hash": HEAD["hash"]}),
        "".join(LINES) + _closing(head=None),
        "".join(LINES) + "[]\n",
        "".join(LINES) + '{"statement": 1}\n',
        "x\n" + _closing(),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidResponseError, match="cannot be trusted"):
        _parse(text)
