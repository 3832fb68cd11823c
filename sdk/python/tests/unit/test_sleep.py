from __future__ import annotations

import threading
from datetime import datetime, timezone

import pytest
from conftest import MakeClient
from peer import Handler, Peer, stalled

from agentcube import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    Checkpoint,
    CheckpointExistsError,
    CheckpointNotFoundError,
    ClientClosedError,
    CodeInterpreterClient,
    ConfigurationError,
    DiskFullError,
    InvalidResponseError,
    NotSupportedError,
    PermissionDeniedError,
    SessionPausedError,
)

CREATE = "/v1/code-interpreter"


# Pause and resume


def test_the_next_call_wakes_a_paused_session(peer: Peer, client: CodeInterpreterClient) -> None:
    client.write_file("kept", "note")
    client.pause()
    assert peer.only.paused
    assert client.execute_command("cat note") == "kept"
    assert not peer.only.paused


def test_pause_and_resume_can_be_repeated(peer: Peer, client: CodeInterpreterClient) -> None:
    client.pause()
    client.pause()
    client.resume()
    client.resume()
    assert not peer.only.paused
    assert len(peer.state.sessions) == 1


def test_a_lost_answer_to_a_pause_is_asked_for_again(
    peer: Peer, client: CodeInterpreterClient, sleeps: list[float]
) -> None:
    client.start()
    peer.on("POST", "/pause", lambda handler: handler.drop())
    client.pause()
    assert peer.only.paused
    assert len(sleeps) == 1


def test_a_full_server_is_asked_again_to_resume(
    peer: Peer, client: CodeInterpreterClient, sleeps: list[float]
) -> None:
    client.pause()
    peer.answer("POST", "/resume", 429, {"error": "full"}, {"Retry-After": "3"})
    client.resume()
    assert sleeps == [3]
    assert not peer.only.paused


def test_a_slow_pause_names_the_option(peer: Peer, make_client: MakeClient) -> None:
    release = threading.Event()
    client = make_client(create_timeout=0.5, max_retries=0)
    client.start()
    peer.on("POST", "/pause", stalled(release))
    with pytest.raises(APITimeoutError, match="create_timeout="):
        client.pause()
    release.set()


def test_a_paused_session_can_be_stopped(peer: Peer, client: CodeInterpreterClient) -> None:
    with client:
        client.pause()
    assert peer.live == []


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (409, "SESSION_PAUSED", SessionPausedError),
        (501, "NOT_SUPPORTED", NotSupportedError),
        (507, "DISK_FULL", DiskFullError),
    ],
)
def test_refusals(
    status: int, code: str, error: type[Exception], peer: Peer, client: CodeInterpreterClient
) -> None:
    client.start()
    peer.answer("POST", "/pause", status, {"error": "no", "code": code})
    with pytest.raises(error):
        client.pause()
    peer.answer("POST", "/execute", status, {"error": "no", "code": status, "reason": code})
    with pytest.raises(error):
        client.execute_command("true")


# Forks


def test_forks_begin_where_the_session_is_and_go_their_own_ways(
    peer: Peer, make_client: MakeClient
) -> None:
    with make_client(ttl=77) as parent:
        parent.write_file("before", "note")
        forks = parent.fork(3)
        parent.write_file("after", "note")
        for number, fork in enumerate(forks):
            assert fork.execute_command("cat note") == "before"
            fork.write_file(str(number), "note")
        ids = {parent.session_id, *(fork.session_id for fork in forks)}
        assert len(ids) == len(peer.live) == 4
        assert {s.ttl for s in peer.live} == {77}
        assert {s.parent for s in peer.live} == {None, parent.session_id}
        keys = {s.key.public_numbers().n for s in peer.live if s.key is not None}
        assert len(keys) == 4
    # The parent is gone, its forks are not.
    assert len(peer.live) == 3
    for number, fork in enumerate(forks):
        with fork:
            assert fork.execute_command("cat note") == str(number)
    assert peer.live == []


def test_a_fork_has_its_own_ttl_and_can_be_forked(
    peer: Peer, client: CodeInterpreterClient
) -> None:
    with client, client.fork(ttl=60)[0] as child, child.fork()[0] as grandchild:
        assert [s.ttl for s in peer.live] == [3600, 60, 60]
        assert grandchild.session_id == peer.live[2].id


def test_one_fork_is_the_default(client: CodeInterpreterClient) -> None:
    with client:
        (fork,) = client.fork()
        fork.stop()


def test_a_fork_of_a_session_without_a_key_has_none(peer: Peer, make_client: MakeClient) -> None:
    with make_client() as owner:
        peer.only.key = None
        attached = make_client(session_id=owner.session_id)
        with attached.fork()[0] as fork:
            assert fork.execute_command("echo x") == "x\n"
            assert peer.state.sessions[fork.session_id].key is None
        assert len(peer.live) == 1


def test_a_fork_of_a_subclass_is_one(peer: Peer) -> None:
    class Named(CodeInterpreterClient):
        label = ""

    with Named(workload_manager_url=peer.url, router_url=peer.url) as parent:
        parent.label = "mine"
        with parent.fork()[0] as fork:
            assert isinstance(fork, Named)
            assert fork.label == "mine"
            assert fork.session_id != parent.session_id


def test_a_forgotten_fork_is_warned_about_and_deleted(
    peer: Peer, client: CodeInterpreterClient
) -> None:
    with client:
        (fork,) = client.fork()
        with pytest.warns(ResourceWarning, match="never stopped"):
            del fork
        assert len(peer.live) == 1


def test_a_lost_answer_makes_no_second_fork(peer: Peer, client: CodeInterpreterClient) -> None:
    client.start()

    def drop(handler: Handler) -> None:
        handler.seen.body = handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.drop()

    lost = peer.on("POST", "/fork", drop)
    with pytest.raises(APIConnectionError, match="lost"):
        client.fork()
    assert len(lost) == len(peer.requests("POST", "/fork")) == 1


def test_each_attempt_is_agreed_to_anew(
    peer: Peer, client: CodeInterpreterClient, sleeps: list[float]
) -> None:
    client.start()
    busy = peer.answer("POST", "/fork", 429, {"error": "full"})
    with client.fork()[0]:
        pass
    (again,) = (seen for seen in peer.requests("POST", "/fork") if seen not in busy)
    name = "x-agentcube-session-signature"
    assert busy[0].headers[name] != again.headers[name]
    assert busy[0].body == again.body


def test_the_server_wants_agreement_and_bearer(peer: Peer, make_client: MakeClient) -> None:
    peer.state.token = "right"
    with make_client(auth_token="right") as owner:
        other = make_client(
            auth_token="right",
            session_id=owner.session_id,
            private_key=_other_key(),
        )
        with pytest.raises(PermissionDeniedError, match="does not agree"):
            other.fork()
        with pytest.raises(PermissionDeniedError, match="does not agree"):
            other.checkpoint("c")
        with owner.fork()[0]:
            pass


def _other_key() -> bytes:
    from peer import new_private_key  # noqa: PLC0415

    return new_private_key()


def test_the_path_that_is_signed_has_no_prefix(peer: Peer, make_client: MakeClient) -> None:
    peer.state.prefix = "/some/where"
    with make_client(workload_manager_url=peer.url, router_url=peer.url) as client:
        with client.fork()[0]:
            pass
        client.checkpoint("c")


@pytest.mark.parametrize("body", [{}, {"sessions": []}, {"sessions": [1]}, {"sessions": [{}]}])
def test_malformed_answers_to_a_fork(
    body: object, peer: Peer, client: CodeInterpreterClient
) -> None:
    client.start()
    peer.answer("POST", "/fork", 200, body)
    with pytest.raises(InvalidResponseError):
        client.fork()


@pytest.mark.parametrize("n", [0, -1, 65])
def test_how_many_forks(n: int, peer: Peer, client: CodeInterpreterClient) -> None:
    with pytest.raises(ValueError, match="from 1 to 64"):
        client.fork(n)
    with pytest.raises(ConfigurationError):
        client.fork(ttl=n - 100)
    assert peer.state.seen == []


def test_wrong_types(client: CodeInterpreterClient) -> None:
    for n in (True, "1", 1.0):
        with pytest.raises(TypeError):
            client.fork(n)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        client.checkpoint(None)  # type: ignore[arg-type]


# Checkpoints


def test_a_session_begins_from_a_checkpoint(peer: Peer, make_client: MakeClient) -> None:
    with make_client(name="custom-template", namespace="agentcube") as first:
        first.write_file("kept", "note")
        kept = first.checkpoint("data.loaded-1")
        first.write_file("later", "note")
    assert isinstance(kept, Checkpoint)
    assert (kept.name, kept.size, kept.session_id) == ("data.loaded-1", 12345, first.session_id)
    assert kept.created == datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=timezone.utc)
    assert kept.expires == datetime(2026, 1, 9, 3, 4, 5, tzinfo=timezone.utc)
    with (
        make_client(checkpoint="data.loaded-1") as second,
        make_client(checkpoint="data.loaded-1") as third,
    ):
        assert second.execute_command("cat note") == third.execute_command("cat note") == "kept"
        assert "agentcube/custom-template" in repr(second)
        with second.fork()[0] as fork:
            assert fork.execute_command("cat note") == "kept"
    # Nobody named a template: it is the checkpoint's.
    assert "name" not in peer.requests("POST", CREATE)[-1].json
    assert peer.live == []


def test_a_checkpoint_of_another_template(peer: Peer, make_client: MakeClient) -> None:
    with make_client() as client:
        client.checkpoint("c")
    with pytest.raises(BadRequestError, match="another template"):
        make_client(name="custom-template", namespace="agentcube", checkpoint="c").start()


def test_the_list_of_checkpoints(peer: Peer, make_client: MakeClient) -> None:
    with make_client() as client:
        client.checkpoint("a")
        client.checkpoint("b")
        with pytest.raises(CheckpointExistsError):
            client.checkpoint("a")
    unused = make_client()
    assert [kept.name for kept in unused.list_checkpoints()] == ["a", "b"]
    unused.delete_checkpoint("a")
    with pytest.raises(CheckpointNotFoundError) as caught:
        unused.delete_checkpoint("a")
    assert caught.value.code == "CHECKPOINT_NOT_FOUND"
    assert [kept.name for kept in unused.list_checkpoints()] == ["b"]
    assert len(peer.state.sessions) == 1
    with pytest.raises(CheckpointNotFoundError):
        make_client(checkpoint="a").start()


@pytest.mark.parametrize("body", [{}, {"checkpoints": [1]}, {"checkpoints": [{"name": 1}]}])
def test_malformed_lists(body: object, peer: Peer, client: CodeInterpreterClient) -> None:
    peer.answer("GET", "/v1/checkpoints", 200, body)
    with pytest.raises(InvalidResponseError):
        client.list_checkpoints()


@pytest.mark.parametrize("name", ["", ".a", "-a", "a/b", "ä", "a" * 129, "a\n"])
def test_malformed_names(name: str, peer: Peer, make_client: MakeClient) -> None:
    client = make_client()
    for use in (client.checkpoint, client.delete_checkpoint):
        with pytest.raises(ValueError, match="name of a checkpoint"):
            use(name)
    with pytest.raises(ConfigurationError):
        make_client(checkpoint=name)
    assert peer.state.seen == []


def test_a_session_that_is_there_begins_from_nothing(make_client: MakeClient) -> None:
    with pytest.raises(ConfigurationError, match="exclude each other"):
        make_client(session_id="x", checkpoint="c")


def test_a_stopped_client_can_do_none_of_it(client: CodeInterpreterClient) -> None:
    client.start()
    client.stop()
    for use in (
        client.pause,
        client.resume,
        client.fork,
        lambda: client.checkpoint("c"),
        client.list_checkpoints,
        lambda: client.delete_checkpoint("c"),
    ):
        with pytest.raises(ClientClosedError):
            use()
