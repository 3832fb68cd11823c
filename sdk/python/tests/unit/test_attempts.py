from __future__ import annotations

import threading

import pytest
from conftest import MakeClient
from peer import Handler, Peer, stalled

from agentcube import (
    APIConnectionError,
    APITimeoutError,
    CodeInterpreterClient,
    InternalServerError,
    RateLimitError,
)

CREATE = "/v1/code-interpreter"
SESSIONS = "/v1/code-interpreter/sessions/"
BUSY = {"error": "server overloaded", "code": "SERVER_OVERLOADED"}


def test_a_busy_server_is_asked_again(
    peer: Peer, client: CodeInterpreterClient, sleeps: list[float]
) -> None:
    first = peer.answer("POST", CREATE, 429, BUSY, {"Retry-After": "2"})
    second = peer.answer("POST", CREATE, 503, {"error": "starting"})
    client.start()
    assert sleeps[0] == 2
    assert 0 < sleeps[1] <= 0.2
    keys = {seen.headers["idempotency-key"] for seen in [*first, *second, *peer.requests("POST")]}
    assert len(keys) == 1


def test_a_server_that_stays_busy(
    peer: Peer, client: CodeInterpreterClient, sleeps: list[float]
) -> None:
    peer.answer("POST", CREATE, 429, BUSY, {"Retry-After": "86400"}, times=10)
    with pytest.raises(RateLimitError) as caught:
        client.start()
    assert caught.value.retry_after == 86400
    assert len(peer.requests("POST")) == 4
    assert sleeps == [30, 30, 30]


def test_a_machine_that_allows_no_sandboxes_is_not_asked_again(
    peer: Peer, client: CodeInterpreterClient, sleeps: list[float]
) -> None:
    answer = {"error": "not here", "code": "SANDBOX_NOT_ALLOWED", "hint": "run `agentcube doctor`"}
    peer.answer("POST", CREATE, 503, answer, times=10)
    with pytest.raises(InternalServerError, match="agentcube doctor"):
        client.start()
    assert sleeps == []


def test_no_attempts_if_none_are_wanted(
    peer: Peer, make_client: MakeClient, sleeps: list[float]
) -> None:
    peer.answer("POST", CREATE, 429, BUSY, times=10)
    with pytest.raises(RateLimitError):
        make_client(max_retries=0).start()
    assert sleeps == []


def test_a_lost_answer_makes_no_second_session(
    peer: Peer, client: CodeInterpreterClient, sleeps: list[float]
) -> None:
    def create_and_hang_up(handler: Handler) -> None:
        handler.seen.body = handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.answer = lambda *_: handler.drop()  # type: ignore[method-assign]
        handler.create("r")

    peer.on("POST", CREATE, create_and_hang_up)
    with client:
        assert len(peer.requests("POST", CREATE)) == 2
        assert len(peer.state.sessions) == 1
    assert len(sleeps) == 1


def test_half_an_answer_makes_no_second_session(
    peer: Peer, client: CodeInterpreterClient, sleeps: list[float]
) -> None:
    def create_and_answer_half(handler: Handler) -> None:
        handler.seen.body = handler.rfile.read(int(handler.headers["Content-Length"]))

        def half(status: int, body: object, headers: object = None) -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", "100")
            handler.end_headers()
            handler.wfile.write(b'{"sessionId": "')
            handler.drop()

        handler.answer = half  # type: ignore[method-assign]
        handler.create("r")

    peer.on("POST", CREATE, create_and_answer_half)
    with client:
        assert len(peer.state.sessions) == 1
    assert peer.live == []
    assert len(sleeps) == 1


def test_a_create_in_progress_is_waited_for(
    peer: Peer, client: CodeInterpreterClient, sleeps: list[float]
) -> None:
    peer.answer("POST", CREATE, 409, {"error": "being created", "code": "SESSION_NOT_READY"})
    client.start()
    assert len(sleeps) == 1


def test_a_lost_deletion_is_repeated(
    peer: Peer, client: CodeInterpreterClient, sleeps: list[float]
) -> None:
    client.start()
    peer.on("DELETE", SESSIONS, lambda handler: handler.drop())
    client.stop()
    assert peer.live == []


def test_a_slow_create_names_the_option(peer: Peer, make_client: MakeClient) -> None:
    release = threading.Event()
    peer.on("POST", CREATE, stalled(release))
    with pytest.raises(APITimeoutError, match="create_timeout="):
        make_client(create_timeout=0.05).start()
    release.set()
    assert len(peer.requests("POST")) == 1


def test_no_server(sleeps: list[float], clean_environment: None) -> None:
    with Peer() as gone:
        url = gone.url
    client = CodeInterpreterClient(workload_manager_url=url, router_url=url)
    with pytest.raises(APIConnectionError) as caught:
        client.start()
    for part in (url, "agentcube up", "WORKLOAD_MANAGER_URL"):
        assert part in str(caught.value)
    assert len(sleeps) == 3


def test_the_server_goes_away(peer: Peer, make_client: MakeClient, sleeps: list[float]) -> None:
    with Peer() as other:
        client = make_client(router_url=other.url)
        client.start()
    with pytest.raises(APIConnectionError, match="ROUTER_URL"):
        client.execute_command("true")
