from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from peer import Peer

from agentcube import CodeInterpreterClient
from agentcube._trace import traceparent


def test_requests_are_part_of_the_current_span(peer: Peer, client: CodeInterpreterClient) -> None:
    tracer = TracerProvider().get_tracer("test")
    client.start()
    with tracer.start_as_current_span("outer") as outer:
        token = context.attach(baggage.set_baggage("secret", "of the program"))
        client.execute_command("true")
        context.detach(token)
        with tracer.start_as_current_span("inner") as inner:
            client.list_files()
    client.list_files()

    (run,) = peer.requests("POST", "/api/execute")
    within, without = peer.requests("GET", "/api/files")
    for request, span in ((run, outer), (within, inner)):
        at = span.get_span_context()
        step = request.headers["traceparent"][: -len("01")]
        assert step == f"00-{at.trace_id:032x}-{at.span_id:016x}-"
        assert "baggage" not in request.headers
        assert "tracestate" not in request.headers
    assert "traceparent" not in without.headers
    (create,) = peer.requests("POST", "/v1/code-interpreter")
    assert "traceparent" not in create.headers


def test_a_tracer_that_fails_fails_no_request(
    peer: Peer, client: CodeInterpreterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(carrier: object) -> None:
        raise RuntimeError("odd")

    def inject_odd(carrier: dict[str, str]) -> None:
        carrier["traceparent"] = "00-odd\r\nX-Injected: yes"

    for inject in (fail, inject_odd):
        monkeypatch.setattr(propagate, "inject", inject)
        assert client.list_files() == []
    assert all("traceparent" not in r.headers for r in peer.requests("GET", "/api/files"))


def test_without_a_span_there_is_none() -> None:
    assert not trace.get_current_span().get_span_context().is_valid
    assert traceparent() is None


def test_who_does_not_trace_does_not_import_opentelemetry() -> None:
    code = """
import sys
from agentcube._trace import traceparent
import agentcube
assert traceparent() is None
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
