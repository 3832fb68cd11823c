"""The record that the agent in the sandbox keeps, against a running AgentCube."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from agentcube import CodeInterpreterClient, InvalidResponseError, NotSupportedError
from agentcube._audit import parse

Pause = Callable[[CodeInterpreterClient], None]


def test_record_holds_each_request_once(pause: Pause) -> None:
    content = b"a,b\n"
    with CodeInterpreterClient() as client:
        client.execute_command(["true"])
        client.write_file(content, "data.csv")
        record = client.audit_record()
        assert [(e["method"], e["path"], e["status"]) for e in record.entries] == [
            ("POST", "/api/execute", 200),
            ("POST", "/api/files", 200),
        ]
        for entry in record.entries:
            assert entry["signature"].count(".") == 2
        pause(client)
        client.execute_command(["true"])
        after = client.audit_record(int(record.head.split(":")[0]))
    assert [e["path"] for e in after.entries] == ["/api/audit?after=0", "/api/execute"]
    assert after.entries[0]["output"]["sha256"] == hashlib.sha256(record.text.encode()).hexdigest()


def test_record_that_was_changed_is_refused() -> None:
    with CodeInterpreterClient() as client:
        client.execute_command(["true"])
        client.execute_command(["true"])
        record = client.audit_record()
        channel = client._session._channel
        assert channel is not None
        certificate, session = channel.secure.certificate, client.session_id
    lines = record.text.splitlines(keepends=True)
    assert len(lines) == 3
    parse("".join(lines), certificate, session)
    # What begins later is what was asked for with after.
    assert len(parse("".join(lines[1:]), certificate, session).entries) == 1
    for name, changed in {
        "one left out at the end": [lines[0], lines[2]],
        "none": [*lines[:2]],
        "another status": [lines[0].replace('"status":200', '"status":201'), *lines[1:]],
        "moved": [lines[1], lines[0], lines[2]],
    }.items():
        with pytest.raises(InvalidResponseError):
            pytest.fail(f"{name}: {parse(''.join(changed), certificate, session)}")
    with pytest.raises(InvalidResponseError, match="another session"):
        parse(record.text, certificate, "another")


def test_session_in_plain_text_keeps_none() -> None:
    with CodeInterpreterClient(encrypt=False) as client:
        client.execute_command(["true"])
        with pytest.raises(NotSupportedError, match="keeps no record"):
            client.audit_record()
