"""AgentRuntimeClient: sessions, calls and their failures."""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peer import Handler, Peer, stalled

from agentcube import (
    AgentRuntimeClient,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    InternalServerError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    SessionEndedError,
)

MakeAgent = Callable[..., AgentRuntimeClient]
PATH = "/v1/namespaces/default/agent-runtimes/my-agent/invocations/"
SESSION = "x-agentcube-session-id"


@pytest.fixture
def make(peer: Peer) -> Iterator[MakeAgent]:
    made: list[AgentRuntimeClient] = []

    def make(name: str = "my-agent", **options: Any) -> AgentRuntimeClient:
        options = {"workload_manager_url": peer.url, "router_url": peer.url, **options}
        client = AgentRuntimeClient(name, **options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def test_a_session_begins_with_the_first_call(peer: Peer, make: MakeAgent) -> None:
    client = make()
    assert peer.state.seen == []
    assert client.invoke({"prompt": "hello"}) == {"answer": "You said: hello", "heard": 1}
    first, second = peer.state.seen
    assert (first.method, first.target, first.body) == ("GET", PATH, b"")
    assert SESSION not in first.headers
    assert (second.method, second.target, second.json) == ("POST", PATH, {"prompt": "hello"})
    assert second.headers[SESSION] == peer.only.id == client.session_id
    assert second.headers["content-type"] == "application/json"


def test_the_session_keeps_its_state(peer: Peer, make: MakeAgent) -> None:
    one, two = make(), make()
    heard = [client.invoke({"prompt": "x"})["heard"] for client in (one, one, two, one)]
    assert heard == [1, 2, 1, 3]
    attached = make(session_id=one.session_id)
    assert attached.invoke({"prompt": "x"})["heard"] == 4
    assert len(peer.state.sessions) == 2


def test_leaving_the_block_leaves_the_session(peer: Peer, make: MakeAgent) -> None:
    with make() as client:
        session_id = client.session_id
    assert [session.id for session in peer.live] == [session_id]
    assert client.session_id == session_id
    with pytest.raises(ClientClosedError):
        client.invoke({})
    with make(session_id=session_id) as again:
        again.stop()
    assert peer.live == []
    again.stop()
    assert len(peer.requests("DELETE")) == 1


def test_stop_ends_what_close_has_let_go(peer: Peer, make: MakeAgent) -> None:
    client = make()
    client.start()
    client.close()
    client.stop()
    assert peer.live == []


def test_stop_of_a_client_that_did_nothing(peer: Peer, make: MakeAgent) -> None:
    make().stop()
    assert peer.state.seen == []


def test_a_forgotten_client_leaves_its_session(peer: Peer) -> None:
    AgentRuntimeClient("my-agent", router_url=peer.url).start()
    gc.collect()
    assert len(peer.live) == 1


def test_the_first_answer_counts_whatever_it_is(peer: Peer, make: MakeAgent) -> None:
    for status in (200, 302, 404, 410, 429, 500, 503):
        peer.answer("GET", PATH, status, b"x" * 100_000, {SESSION: f"s-{status}"})
        assert make().session_id == f"s-{status}"
    assert len(peer.state.seen) == 7


def test_a_first_answer_without_an_end(peer: Peer, make: MakeAgent) -> None:
    release = threading.Event()

    def stream(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header(SESSION, "s-1")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        release.wait(60)

    peer.on("GET", PATH, stream)
    assert make().session_id == "s-1"
    release.set()


@pytest.mark.parametrize("named", [{}, {SESSION: "two words"}, {SESSION: ""}])
def test_a_first_answer_that_names_no_session(
    named: dict[str, str], peer: Peer, make: MakeAgent
) -> None:
    peer.answer("GET", PATH, 200, {}, named)
    with pytest.raises(InvalidResponseError, match="names no session"):
        make().start()


def test_a_session_that_cannot_be_made(peer: Peer, make: MakeAgent) -> None:
    with pytest.raises(NotFoundError, match="agentruntimes") as missing:
        make("no-agent").start()
    assert missing.value.code == "TEMPLATE_NOT_FOUND"
    body = {"error": "it did not listen on port 9000", "code": "SERVER_NOT_LISTENING", "hint": "H"}
    seen = peer.answer("GET", PATH, 504, body)
    with pytest.raises(InternalServerError, match="port 9000 - H") as deaf:
        make().start()
    assert (deaf.value.status, deaf.value.code) == (504, "SERVER_NOT_LISTENING")
    assert len(seen) == 1


def test_a_busy_server_is_asked_again(peer: Peer, make: MakeAgent) -> None:
    peer.answer(
        "GET", PATH, 429, {"error": "full", "code": "SERVER_OVERLOADED"}, {"Retry-After": "0"}, 2
    )
    assert make().invoke({"prompt": "x"})["heard"] == 1
    peer.answer("GET", PATH, 429, {"error": "full"}, {"Retry-After": "0"}, 9)
    with pytest.raises(RateLimitError):
        make(max_retries=1).start()


def test_what_is_sent(make: MakeAgent) -> None:
    client = make()
    got = client.invoke({"ü": [1, None]}, path="/mirror?a=b%20c&d=ü e", headers={"X-Api-Key": "k"})
    assert got["query"] == "a=b%20c&d=%C3%BC%20e"
    assert (got["method"], got["headers"]["x-api-key"]) == ("POST", "k")
    assert got["body"] == '{"\\u00fc": [1, null]}'
    got = client.invoke(b"raw\x00", path="mirror", method="PUT")
    assert (got["method"], got["body"]) == ("PUT", "raw\x00")
    assert got["headers"]["content-type"] == "application/octet-stream"
    got = client.invoke(b"<x/>", path="mirror", headers={"content-type": "text/xml"})
    assert got["headers"]["content-type"] == "text/xml"
    got = client.invoke(None, path="mirror", method="GET")
    assert (got["method"], got["body"]) == ("GET", "")
    assert "content-type" not in got["headers"]


def test_what_comes_back(make: MakeAgent) -> None:
    client = make()
    assert client.invoke(None, path="text", method="GET") == "just words ü"
    assert client.invoke(None, path="empty", method="GET") == ""


def test_failures_of_the_agent(make: MakeAgent) -> None:
    client = make()
    with pytest.raises(NotFoundError, match="knows no such page") as missing:
        client.invoke({}, path="nowhere")
    assert missing.value.code is None
    with pytest.raises(APIStatusError, match="short and stout") as teapot:
        client.invoke(None, path="teapot", method="GET")
    assert teapot.value.status == 418
    # A page that is gone is not a session that is.
    with pytest.raises(APIStatusError) as gone:
        client.invoke(None, path="gone", method="GET")
    assert not isinstance(gone.value, SessionEndedError)


def test_a_session_that_has_ended(peer: Peer, make: MakeAgent) -> None:
    client = make()
    client.start()
    peer.only.fate = "idle"
    with pytest.raises(SessionEndedError) as ended:
        client.invoke({})
    assert ended.value.fate == "idle"


def test_calls_are_made_once(peer: Peer, make: MakeAgent) -> None:
    client = make()
    client.start()
    peer.on("POST", PATH, lambda handler: handler.drop())
    with pytest.raises(APIConnectionError, match="lost"):
        client.invoke({"prompt": "x"})
    peer.answer("POST", PATH, 503, {"error": "later"})
    with pytest.raises(InternalServerError):
        client.invoke({"prompt": "x"})
    assert len(peer.requests("POST", PATH)) == 2


def test_timeouts_name_their_option(peer: Peer, make: MakeAgent) -> None:
    release = threading.Event()
    client = make(timeout=0.2)
    client.start()
    peer.on("POST", PATH, stalled(release))
    with pytest.raises(APITimeoutError, match=r"within 0\.2 s; raise the option timeout="):
        client.invoke({})
    peer.on("POST", PATH, stalled(release))
    with pytest.raises(APITimeoutError, match=r"within 0\.1 s; raise the option timeout="):
        make(session_id=client.session_id).invoke({}, timeout=0.1)
    peer.on("GET", PATH, stalled(release))
    with pytest.raises(APITimeoutError, match="raise the option timeout="):
        make(timeout=0.1).start()
    release.set()


def test_a_stream_comes_piece_by_piece(peer: Peer, make: MakeAgent) -> None:
    taken = threading.Semaphore(0)
    peer.state.before_next_piece = lambda: taken.acquire(timeout=60)
    client = make()
    with client.stream({"prompt": "three little words"}, path="chat") as answer:
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        got = []
        for piece in answer:
            got.append(piece)
            taken.release()
    assert got == [b"data: three\n\n", b"data: little\n\n", b"data: words\n\n"]
    taken.release(2)
    with client.stream({"prompt": "two words"}, path="chat") as answer:
        assert list(answer.lines()) == ["data: two", "", "data: words", ""]


def test_a_stream_that_is_left_or_lost(peer: Peer, make: MakeAgent) -> None:
    client = make()
    with client.stream({"prompt": "a b"}, path="chat") as answer:
        assert next(iter(answer)) == b"data: a\n\n"

    def half(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.drop()

    peer.on("POST", PATH, half)
    with client.stream({}) as answer, pytest.raises(APIConnectionError, match="lost"):
        list(answer)
    release = threading.Event()
    peer.state.before_next_piece = lambda: release.wait(60)
    with (
        client.stream({"prompt": "a b"}, path="chat", timeout=0.1) as answer,
        pytest.raises(APITimeoutError, match="timeout="),
    ):
        list(answer)
    release.set()
    peer.state.before_next_piece = lambda: None
    with client.stream({"prompt": "a"}) as answer:
        assert answer.value()["answer"] == "You said: a"
    with pytest.raises(NotFoundError):
        client.stream({}, path="nowhere")


def test_lines_are_put_together(peer: Peer, make: MakeAgent) -> None:
    client = make()
    client.start()
    text = "a\r\nb\n\nü".encode()

    def split(handler: Handler) -> None:
        handler.named = {}
        handler.stream(*(bytes([byte]) for byte in text))

    peer.on("POST", PATH, split)
    with client.stream() as answer:
        assert list(answer.lines()) == ["a", "b", "", "ü"]


def test_sleep(peer: Peer, make: MakeAgent) -> None:
    client = make()
    client.start()
    client.pause()
    assert peer.only.paused
    client.resume()
    assert not peer.only.paused


def test_malformed_arguments_begin_no_session(peer: Peer, make: MakeAgent) -> None:
    client = make()
    for kind, options in (
        (TypeError, {"payload": object()}),
        (ValueError, {"payload": float("nan")}),
        (TypeError, {"path": b"x"}),
        (ValueError, {"path": "a#b"}),
        (ValueError, {"method": "TRACE"}),
        (ValueError, {"method": "GET / HTTP/1.1\r\nX: y"}),
        (TypeError, {"headers": {"X": 1}}),
        (TypeError, {"headers": ["X"]}),
        (ValueError, {"headers": {"X": "a\r\nY: b"}}),
        (ValueError, {"headers": {"X y": "a"}}),
        (ValueError, {"headers": {"Authorization": "Bearer x"}}),
        (ValueError, {"headers": {"X-AgentCube-Session-Id": "other"}}),
        (ConfigurationError, {"timeout": 0}),
        (TypeError, {"timeout": "1"}),
    ):
        arguments: dict[str, Any] = {"payload": {}, **options}
        with pytest.raises(kind):
            client.invoke(**arguments)
    assert peer.state.seen == []


def test_malformed_settings() -> None:
    settings: list[tuple[type[Exception], dict[str, Any]]] = [
        (ConfigurationError, {"agent_name": "Not_A_Name"}),
        (ConfigurationError, {"namespace": "a/b"}),
        (ConfigurationError, {"session_id": "a\r\nb"}),
        (ConfigurationError, {"session_id": ""}),
        (TypeError, {"session_id": 3}),
        (ConfigurationError, {"timeout": -1}),
        (ConfigurationError, {"connect_timeout": 0}),
        (ConfigurationError, {"router_url": "ftp://x"}),
        (TypeError, {"auth": "token"}),
    ]
    for kind, options in settings:
        with pytest.raises(kind):
            AgentRuntimeClient(**{"agent_name": "my-agent", **options})


def test_the_token_is_sent_and_not_shown(peer: Peer, make: MakeAgent) -> None:
    peer.state.token = "very-secret"
    client = make(auth_token="very-secret")
    client.invoke({"prompt": "x"})
    client.stop()
    assert {seen.bearer for seen in peer.state.seen} == {"very-secret"}
    with pytest.raises(AuthenticationError):
        make(auth_token="wrong").start()
    for thing in (client, client._session, client._session.settings):
        assert "very-secret" not in repr(thing)
    assert repr(make()) == "<AgentRuntimeClient default/my-agent: not started>"
    assert repr(client) == "<AgentRuntimeClient default/my-agent: closed>"
    with pytest.raises(TypeError, match="session_id="):
        pickle.dumps(client)


def test_arguments_by_position(peer: Peer) -> None:
    client = AgentRuntimeClient("my-agent", "default", peer.url, False, "s-1", 1, 2, "token", None)
    assert client.session_id == "s-1"
    with pytest.raises(NotFoundError):
        client.invoke({}, 5, "x")
    (seen,) = peer.state.seen
    assert (seen.target, seen.bearer) == (PATH + "x", "token")
