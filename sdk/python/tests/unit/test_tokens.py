"""Tokens that change: files that Kubernetes rotates, and those of an identity provider."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from peer import Handler, Peer

from agentcube import (
    AgentRuntimeClient,
    APIConnectionError,
    AuthenticationError,
    CodeInterpreterClient,
    ConfigurationError,
    InvalidResponseError,
    ServiceAccountAuth,
    TokenAuth,
    _settings,
    _tokens,
)

AGENT = "/agent-runtimes/"


@pytest.fixture
def projected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where Kubernetes puts the token for AgentCube, as far as the SDK knows."""
    file = tmp_path / "agentcube" / "token"
    file.parent.mkdir()
    monkeypatch.setattr(_settings, "PROJECTED_TOKEN", file)
    monkeypatch.setattr(_settings, "SERVICE_ACCOUNT_TOKEN", tmp_path / "account")
    return file


def rotated(file: Path, peer: Peer, token: str) -> Callable[[Handler], None]:
    """Serves a request by refusing it, when the token has just been replaced."""

    def act(handler: Handler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        file.write_text(token + "\n")
        peer.state.token = token
        handler.answer(401, {"error": "expired", "code": "UNAUTHORIZED"})

    return act


def test_a_token_that_is_rotated(peer: Peer, projected: Path) -> None:
    peer.state.token = "one"
    projected.write_text("one\n")
    client = AgentRuntimeClient(
        "my-agent", router_url=peer.url, workload_manager_url=peer.url, max_retries=0
    )
    client.invoke({"prompt": "x"})
    projected.write_text("two\n")
    peer.state.token = "two"
    client.invoke({"prompt": "x"})
    # And while a request is under way: it is made once more, and has been done once.
    peer.on("POST", AGENT, rotated(projected, peer, "three"))
    assert client.invoke({"prompt": "x"})["heard"] == 3
    peer.on("DELETE", "", rotated(projected, peer, "four"))
    client.stop()
    assert [seen.bearer for seen in peer.state.seen][-3:] == ["three", "three", "four"]
    assert peer.live == []


def test_a_rotation_while_a_session_begins(peer: Peer, projected: Path) -> None:
    projected.write_text("one")
    peer.on("GET", AGENT, rotated(projected, peer, "two"))
    with AgentRuntimeClient("my-agent", router_url=peer.url) as client:
        assert client.session_id == peer.only.id
    peer.on("POST", "/v1/code-interpreter", rotated(projected, peer, "three"))
    with CodeInterpreterClient(router_url=peer.url, workload_manager_url=peer.url) as interpreter:
        assert interpreter.execute_command("echo x") == "x\n"


def test_a_token_that_stays_refused_is_tried_once(peer: Peer, projected: Path) -> None:
    peer.state.token = "right"
    projected.write_text("wrong")
    with pytest.raises(AuthenticationError):
        AgentRuntimeClient("my-agent", router_url=peer.url).start()
    assert len(peer.state.seen) == 1

    def worse(handler: Handler) -> None:
        projected.write_text(f"wrong-{len(peer.state.seen)}")
        handler.answer(401, {"error": "no", "code": "UNAUTHORIZED"})

    peer.on("GET", AGENT, worse, times=9)
    with pytest.raises(AuthenticationError):
        AgentRuntimeClient("my-agent", router_url=peer.url).start()
    assert len(peer.state.seen) == 3


def test_what_an_agent_refuses_is_not_sent_again(peer: Peer, projected: Path) -> None:
    projected.write_text("one")
    client = AgentRuntimeClient("my-agent", router_url=peer.url)
    client.start()

    def refuse(handler: Handler) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        projected.write_text("two")
        handler.answer(401, {"detail": "who are you?"})

    seen = peer.on("POST", AGENT, refuse, times=9)
    with pytest.raises(AuthenticationError, match="who are you"):
        client.invoke({})
    assert len(seen) == 1
    client.close()


def test_an_upload_is_not_sent_twice(peer: Peer, projected: Path, tmp_path: Path) -> None:
    projected.write_text("one")
    with CodeInterpreterClient(router_url=peer.url, workload_manager_url=peer.url) as owner:
        (tmp_path / "local").write_bytes(b"content")
        peer.only.key = None  # as if it had been made without
        client = CodeInterpreterClient(
            name="simple-codeinterpreter", session_id=owner.session_id, router_url=peer.url
        )
        seen = peer.on("POST", "/api/files", rotated(projected, peer, "two"), times=9)
        with pytest.raises(AuthenticationError):
            client.upload_file(tmp_path / "local", "remote")
        assert len(seen) == 1
        client.detach()


# Identity providers


class Provider:
    """A token endpoint that gives a new token for each request."""

    def __init__(self, peer: Peer, **fields: Any) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.fields = fields
        self.peer = peer
        peer.on("POST", "/realms/x/token", self.serve, times=99)

    def serve(self, handler: Handler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.asked.append(parse_qs(body.decode(), strict_parsing=True))
        self.peer.state.token = f"token-{len(self.asked)}"
        handler.answer(200, {"access_token": self.peer.state.token, **self.fields})


def provided(peer: Peer, **options: Any) -> ServiceAccountAuth:
    return ServiceAccountAuth(peer.url + "/realms/x/token", "me", "very-secret", **options)


def test_tokens_of_a_provider(peer: Peer) -> None:
    provider = Provider(peer, expires_in=300)
    auth = provided(peer, scope="a b", headers={"X-Tenant": "t", "Host": "keycloak.example"})
    with CodeInterpreterClient(
        workload_manager_url=peer.url, router_url=peer.url, auth=auth
    ) as client:
        client.execute_command("true")
    AgentRuntimeClient("my-agent", router_url=peer.url, auth=auth, auth_token="other").start()
    (asked,) = provider.asked
    assert asked == {
        "grant_type": ["client_credentials"],
        "client_id": ["me"],
        "client_secret": ["very-secret"],
        "scope": ["a b"],
    }
    first = peer.state.seen[0]
    assert first.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (first.headers["host"], first.headers["x-tenant"]) == ("keycloak.example", "t")
    assert "authorization" not in first.headers
    assert peer.requests("GET", AGENT)[0].bearer == "token-1"
    assert peer.requests("DELETE")[0].bearer == "token-1"


@pytest.mark.parametrize(
    ("fields", "still_good", "over"),
    [
        ({"expires_in": 300}, 269, 271),
        ({"expires_in": 40}, 19, 21),
        ({}, 3569, 3571),
        ({"expires_in": "soon"}, 3569, 3571),
        ({"expires_in": -1}, 3569, 3571),
    ],
)
def test_how_long_tokens_are_used(
    fields: dict[str, Any],
    still_good: float,
    over: float,
    peer: Peer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(_tokens, "_now", lambda: now)
    Provider(peer, **fields)
    auth = provided(peer)
    assert auth.get_token() == "token-1"
    now += still_good
    assert auth.get_token() == "token-1"
    now += over - still_good
    assert auth.get_token() == "token-2"


def test_a_token_that_is_taken_back_is_replaced(peer: Peer) -> None:
    provider = Provider(peer)
    client = AgentRuntimeClient("my-agent", router_url=peer.url, auth=provided(peer))
    client.invoke({"prompt": "x"})
    peer.state.token = "another"
    assert client.invoke({"prompt": "x"})["heard"] == 2
    assert len(provider.asked) == 2
    client.close()


def test_failures_of_a_provider(peer: Peer) -> None:
    body = {"error": "invalid_client", "error_description": "no such client"}
    peer.answer("POST", "/realms", 401, body)
    with pytest.raises(AuthenticationError, match="invalid_client") as refused:
        provided(peer).get_token()
    answers: list[Any] = [b"<html>", [], {"access_token": 3}, {}]
    for answer in answers:
        peer.answer("POST", "/realms", 200, answer)
        with pytest.raises(InvalidResponseError, match="token_url"):
            provided(peer).get_token()
    peer.answer("POST", "/realms", 200, {"access_token": "two words"})
    with pytest.raises(ConfigurationError, match="access_token"):
        provided(peer).get_token()
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(APIConnectionError, match="token_url"):
        ServiceAccountAuth(f"http://127.0.0.1:{port}/t", "me", "very-secret").get_token()
    assert "very-secret" not in str(refused.value)


def test_any_object_that_gives_tokens(peer: Peer) -> None:
    class Mine:
        def get_token(self) -> str:
            return "mine"

    peer.state.token = "mine"
    AgentRuntimeClient("my-agent", router_url=peer.url, auth=Mine()).start()
    with CodeInterpreterClient(
        workload_manager_url=peer.url, router_url=peer.url, auth=TokenAuth("mine")
    ):
        pass

    class Broken:
        def get_token(self) -> str:
            return "two words"

    with pytest.raises(ConfigurationError, match="get_token"):
        AgentRuntimeClient("my-agent", router_url=peer.url, auth=Broken()).start()


def test_providers_show_no_secret() -> None:
    auth = ServiceAccountAuth("https://id.example/token", "me", "very-secret")
    assert repr(auth) == "<ServiceAccountAuth me at https://id.example/token>"
    with pytest.raises(TypeError):
        pickle.dumps(auth)
    assert repr(TokenAuth("very-secret")) == "<TokenAuth>"
    assert "very-secret" not in repr(_settings.TokenSettings(provider=TokenAuth("very-secret")))


def test_malformed_providers() -> None:
    settings: list[tuple[type[Exception], dict[str, Any]]] = [
        (ConfigurationError, {"token_url": "id.example"}),
        (TypeError, {"client_id": 3}),
        (TypeError, {"client_secret": None}),
        (TypeError, {"scope": ["a"]}),
        (ValueError, {"headers": {"X": "a\nb"}}),
        (ConfigurationError, {"timeout": (0, 1)}),
        (TypeError, {"timeout": ("1", 1)}),
    ]
    for kind, options in settings:
        with pytest.raises(kind):
            ServiceAccountAuth(
                **{"token_url": "https://id.example", "client_id": "a", "client_secret": "b"}
                | options
            )
    with pytest.raises(ConfigurationError, match="token"):
        TokenAuth("two words")
    with pytest.raises(TypeError):
        TokenAuth(3)  # type: ignore[arg-type]
