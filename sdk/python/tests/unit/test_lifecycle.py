from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeClient
from peer import Peer, new_private_key

from agentcube import (
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    CodeInterpreterClient,
    InternalServerError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    SessionEndedError,
)

CREATE = "/v1/code-interpreter"
SESSIONS = "/v1/code-interpreter/sessions/"


def test_a_client_that_is_not_used_owns_nothing(peer: Peer, make_client: MakeClient) -> None:
    client = make_client()
    assert "not started" in repr(client)
    client.stop()
    assert peer.state.seen == []


def test_a_block_is_a_session(peer: Peer, client: CodeInterpreterClient) -> None:
    with client as entered:
        assert entered is client
        assert [s.id for s in peer.live] == [client.session_id]
    assert peer.live == []
    assert client.session_id == peer.only.id
    assert "stopped" in repr(client)


def test_what_is_asked_for_is_sent(peer: Peer, make_client: MakeClient) -> None:
    with make_client(name="custom-template", namespace="agentcube", ttl=7200):
        session = peer.only
        assert (session.name, session.namespace, session.ttl) == (
            "custom-template",
            "agentcube",
            7200,
        )


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.session_id,
        lambda c: c.start(),
        lambda c: c.execute_command("true"),
        lambda c: c.run_code("sh", "true"),
        lambda c: c.write_file("x", "x"),
        lambda c: c.list_files(),
    ],
)
def test_the_first_use_begins_the_session(
    use: Callable[[CodeInterpreterClient], object], peer: Peer, client: CodeInterpreterClient
) -> None:
    use(client)
    assert len(peer.live) == 1
    use(client)
    assert len(peer.state.sessions) == 1


def test_the_block_ends_the_session_when_it_raises(
    peer: Peer, client: CodeInterpreterClient
) -> None:
    with pytest.raises(ZeroDivisionError), client:
        raise ZeroDivisionError
    assert peer.live == []


def test_the_block_ends_the_session_at_ctrl_c(peer: Peer, client: CodeInterpreterClient) -> None:
    with pytest.raises(KeyboardInterrupt), client:
        raise KeyboardInterrupt
    assert peer.live == []


def test_stop_can_be_repeated(peer: Peer, client: CodeInterpreterClient) -> None:
    client.start()
    client.stop()
    client.stop()
    assert len(peer.requests("DELETE")) == 1


def test_a_stopped_client_cannot_be_used(client: CodeInterpreterClient) -> None:
    client.start()
    client.stop()
    with pytest.raises(ClientClosedError):
        client.execute_command("true")
    with pytest.raises(ClientClosedError), client:
        pass


@pytest.mark.parametrize("status", [404, 410])
def test_a_session_that_is_gone_counts_as_ended(
    status: int, peer: Peer, client: CodeInterpreterClient
) -> None:
    peer.answer("DELETE", SESSIONS, status, {"error": "gone"})
    with client:
        pass


def test_a_failed_deletion_is_raised(peer: Peer, client: CodeInterpreterClient) -> None:
    peer.answer("DELETE", SESSIONS, 500, {"error": "boom"})
    with pytest.raises(InternalServerError, match="boom"), client:
        pass
    assert len(peer.live) == 1
    client.stop()  # another attempt
    assert peer.live == []


def test_a_failed_deletion_does_not_hide_the_exception_of_the_block(
    peer: Peer, client: CodeInterpreterClient, caplog: pytest.LogCaptureFixture
) -> None:
    peer.answer("DELETE", SESSIONS, 500, {"error": "boom"})
    with pytest.raises(ZeroDivisionError) as caught, client:
        raise ZeroDivisionError
    assert "boom" in caplog.text
    if sys.version_info >= (3, 11):
        assert "boom" in caught.value.__notes__[0]
    client.stop()


def test_detach_leaves_the_session(peer: Peer, client: CodeInterpreterClient) -> None:
    with client:
        client.detach()
    assert len(peer.live) == 1
    assert peer.requests("DELETE") == []


# Reattaching


def test_a_session_made_with_a_key_needs_it(peer: Peer, make_client: MakeClient) -> None:
    pem = new_private_key()
    first = make_client(private_key=pem)
    first.write_file("kept", "note")
    first.detach()

    with pytest.raises(AuthenticationError):
        make_client(session_id=first.session_id).list_files()
    second = make_client(session_id=first.session_id, private_key=pem)
    assert second.execute_command(["cat", "note"]) == "kept"
    assert len(peer.requests("POST", CREATE)) == 1
    second.stop()
    assert peer.live == []


def test_who_made_a_session_ends_it(peer: Peer, make_client: MakeClient) -> None:
    pem = new_private_key()
    with make_client(private_key=pem) as owner:
        with make_client(session_id=owner.session_id, private_key=pem) as other:
            other.write_file("kept", "note")
        with (
            pytest.raises(ZeroDivisionError),
            make_client(session_id=owner.session_id, private_key=pem),
        ):
            raise ZeroDivisionError
        with pytest.raises(ClientClosedError):
            other.list_files()
        assert owner.execute_command("cat note") == "kept"
        assert peer.requests("DELETE") == []
    assert peer.live == []


def test_forks_of_a_session_made_elsewhere_end_with_their_block(
    peer: Peer, make_client: MakeClient
) -> None:
    pem = new_private_key()
    owner = make_client(private_key=pem)
    with make_client(session_id=owner.session_id, private_key=pem) as other:
        with other.fork()[0] as fork:
            assert fork.list_files() == []
        assert [session.id for session in peer.live] == [owner.session_id]


def test_the_template_of_a_session_made_elsewhere(peer: Peer, make_client: MakeClient) -> None:
    pem = new_private_key()
    custom = {"name": "custom-template", "namespace": "agentcube"}
    with make_client(private_key=pem, **custom) as owner:
        same = {"session_id": owner.session_id, "private_key": pem}
        other = make_client(**same)
        for _ in range(2):
            assert other.list_files() == []
        assert "agentcube/custom-template" in repr(other)
        assert len(peer.requests("GET", "/v1/sessions/")) == 1
        # Who says what it is need not ask.
        assert make_client(**same, **custom).list_files() == []
        with pytest.raises(NotFoundError):
            make_client(**same, name="simple-codeinterpreter").list_files()
        assert len(peer.requests("GET", "/v1/sessions/")) == 1
        other.stop()
        assert len(peer.requests("GET", "/v1/sessions/")) == 1


def test_the_key_and_the_template_are_enough(peer: Peer, make_client: MakeClient) -> None:
    """For a process that has no token of the owner."""
    pem = new_private_key()
    peer.state.token = "secret"
    with make_client(private_key=pem, auth_token="secret") as owner:
        same = {"session_id": owner.session_id, "private_key": pem}
        with make_client(**same, name="simple-codeinterpreter") as other:
            assert other.list_files() == []
        with pytest.raises(AuthenticationError):
            make_client(**same).start()


def test_a_session_that_nobody_knows(peer: Peer, make_client: MakeClient) -> None:
    with pytest.raises(NotFoundError) as caught:
        make_client(session_id="missing", private_key=new_private_key()).start()
    assert caught.value.code == "SESSION_NOT_FOUND"


def test_an_ended_session_made_elsewhere(peer: Peer, make_client: MakeClient) -> None:
    pem = new_private_key()
    with make_client(private_key=pem) as owner:
        other = make_client(session_id=owner.session_id, private_key=pem)
    with pytest.raises(SessionEndedError) as caught:
        other.list_files()
    assert caught.value.fate == "deleted"
    other.stop()


def test_an_older_server_does_not_know_the_template(peer: Peer, make_client: MakeClient) -> None:
    peer.state.older_control = True
    pem = new_private_key()
    with make_client(private_key=pem) as owner:
        other = make_client(session_id=owner.session_id, private_key=pem)
        for _ in range(2):
            assert other.list_files() == []
        assert len(peer.requests("GET", "/v1/sessions/")) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        {},
        {"name": "n"},
        {"name": 1, "namespace": "n"},
        {"name": "..", "namespace": "n"},
    ],
)
def test_malformed_descriptions(body: object, peer: Peer, make_client: MakeClient) -> None:
    client = make_client(session_id="s", private_key=new_private_key())
    peer.answer("GET", "/v1/sessions/s", 200, body)
    with pytest.raises(InvalidResponseError):
        client.start()


def test_a_session_without_a_key_is_used_with_the_token(
    peer: Peer, make_client: MakeClient
) -> None:
    with make_client() as first:
        peer.only.key = None
        peer.state.token = "secret"
        with pytest.raises(AuthenticationError):
            make_client(session_id=first.session_id).list_files()
        assert make_client(session_id=first.session_id, auth_token="secret").list_files() == []
        peer.state.token = None


@pytest.mark.parametrize("session_id", ["", "a b", "a\r\nX: y", "ä"])
def test_malformed_session_ids(session_id: str, make_client: MakeClient) -> None:
    with pytest.raises(ValueError, match="session_id"):
        make_client(session_id=session_id)


# Refusals


def test_an_unknown_template(make_client: MakeClient) -> None:
    with pytest.raises(NotFoundError, match="did you mean") as caught:
        make_client(name="missing").start()
    assert caught.value.code == "TEMPLATE_NOT_FOUND"
    assert caught.value.request_id


def test_a_wrong_token(peer: Peer, make_client: MakeClient) -> None:
    peer.state.token = "right"
    with pytest.raises(AuthenticationError) as caught:
        make_client(auth_token="very-wrong").start()
    assert "very-wrong" not in str(caught.value)
    with make_client(auth_token="right"):
        assert len(peer.live) == 1


def test_the_token_of_the_local_file(
    peer: Peer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    peer.state.token = "local"
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("local\n")
    monkeypatch.setenv("AGENTCUBE_TOKEN_FILE", str(file))
    with make_client() as client:
        client.execute_command("true")
    # The data plane is for the key alone.
    assert all("local" not in seen.bearer for seen in peer.requests("POST", "/invocations/"))


@pytest.mark.parametrize("fate", ["idle", "expired", "out-of-memory"])
def test_an_ended_session_says_why(fate: str, peer: Peer, client: CodeInterpreterClient) -> None:
    client.start()
    peer.only.fate = fate
    with pytest.raises(SessionEndedError) as caught:
        client.execute_command("true")
    assert caught.value.fate == fate


def test_a_session_of_somebody_else(peer: Peer, make_client: MakeClient) -> None:
    with make_client() as owner:
        other = make_client(session_id=owner.session_id, private_key=new_private_key())
        with pytest.raises(AuthenticationError, match="JWT verification failed"):
            other.execute_command("true")
        assert owner.execute_command("echo mine") == "mine\n"
    assert len(peer.state.sessions) == 1


def test_a_refusal_without_a_known_status(peer: Peer, client: CodeInterpreterClient) -> None:
    peer.answer("POST", CREATE, 403, {"error": "no", "code": "FORBIDDEN"})
    with pytest.raises(PermissionDeniedError):
        client.start()
    peer.answer("POST", CREATE, 400, {"error": "no", "code": "INVALID_REQUEST"})
    with pytest.raises(BadRequestError):
        client.start()
    client.start()  # a failed start can be repeated


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"{}", b'{"sessionId": ""}'])
def test_another_program_on_the_port(
    body: bytes, peer: Peer, client: CodeInterpreterClient
) -> None:
    peer.answer("POST", CREATE, 200, body)
    with pytest.raises(InvalidResponseError, match="does not answer like AgentCube"):
        client.start()


# What is written down


def test_nothing_secret_is_logged_or_shown(
    peer: Peer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    peer.state.token = "very-secret-token"
    caplog.set_level(logging.DEBUG, "agentcube")
    with make_client(auth_token="very-secret-token") as client:
        client.run_code("sh", "echo very-secret-$((40 + 2))")
        client.execute_command("echo very-secret-command")
        client.write_file("very-secret-content", "f")
        shown = repr(client) + repr(client.__dict__)
    assert "session created" in caplog.text
    text = caplog.text + shown
    assert "very-secret" not in text
    assert "PRIVATE" not in text
    for seen in peer.requests("POST", "/invocations/"):
        assert seen.bearer not in text
