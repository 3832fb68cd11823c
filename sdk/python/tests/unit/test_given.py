from __future__ import annotations

import logging
from typing import Any

import pytest
from conftest import MakeClient
from peer import Peer

from agentcube import (
    APIStatusError,
    BadRequestError,
    ConfigurationError,
    NotSupportedError,
)

CREATE = "/v1/code-interpreter"
SECRET = "hunter2-and-more"


def test_a_session_begins_with_variables_and_files(peer: Peer, make_client: MakeClient) -> None:
    client = make_client(
        env={"GREETING": "hällo", "EMPTY": ""},
        files={"data/in.csv": "ä,b\n", "/workspace/raw": b"\xff\x00", "empty": b""},
    )
    assert client.execute_command("cat data/in.csv; echo $GREETING.${EMPTY-unset}") == (
        "ä,b\nhällo.\n"
    )
    assert client.execute_command("echo $GREETING", env={"GREETING": "own"}) == "own\n"
    assert client.run_code("python", "import os; print(os.environ['GREETING'])") == "hällo\n"
    assert (peer.only.root / "raw").read_bytes() == b"\xff\x00"
    assert (peer.only.root / "empty").read_bytes() == b""


def test_without_them_nothing_of_them_is_sent(peer: Peer, make_client: MakeClient) -> None:
    make_client().start()
    make_client(env={}, files={}).start()
    for request in peer.requests("POST", CREATE):
        assert not {"env", "files"} & set(request.json)


def test_copies_have_them(make_client: MakeClient) -> None:
    show = "echo $A,$B; cat file"
    with make_client(env={"A": "1", "B": "1"}, files={"file": "first"}) as client:
        (fork,) = client.fork()
        with fork:
            assert fork.execute_command(show) == "1,1\nfirst"
        client.checkpoint("kept")
    with make_client(checkpoint="kept", env={"B": "2"}, files={"file": "second"}) as again:
        assert again.execute_command(show) == "1,2\nsecond"
        again.delete_checkpoint("kept")


def test_the_answer_to_a_lost_request_is_asked_for_again(
    peer: Peer, make_client: MakeClient, sleeps: list[float]
) -> None:
    client = make_client(env={"A": "1"}, files={"a": "1", "b": "2"})
    peer.on("POST", CREATE, lambda handler: handler.drop())
    client.start()
    first, second = peer.requests("POST", CREATE)
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert second.json["env"] == {"A": "1"}
    assert len(sleeps) == 1


def test_a_server_that_takes_no_notice_keeps_no_session(
    peer: Peer, make_client: MakeClient
) -> None:
    peer.state.older_control = True
    make_client().start()
    for options in ({"env": {"A": "1"}}, {"files": {"a": ""}}):
        with pytest.raises(NotSupportedError, match="too old"):
            make_client(**options).start()
    assert len(peer.live) == 1


def test_a_file_that_cannot_be_written(peer: Peer, make_client: MakeClient) -> None:
    client = make_client(files={"a/b": "", "a": ""})
    with pytest.raises(APIStatusError, match=r"files\[1\]\.path is that of a folder") as caught:
        client.start()
    assert (caught.value.status, caught.value.code) == (422, "FILE_NOT_WRITTEN")
    assert peer.state.sessions == {}


def test_what_the_server_refuses(peer: Peer, make_client: MakeClient) -> None:
    peer.answer("POST", CREATE, 400, {"error": "env has more than 128 variables"})
    with pytest.raises(BadRequestError, match="more than 128"):
        make_client(env={"A": "1"}).start()


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"env": ["A"]}, TypeError),
        ({"env": {"A": 1}}, TypeError),
        ({"env": {1: "A"}}, TypeError),
        ({"env": {"": "a"}}, ValueError),
        ({"env": {"A=B": "a"}}, ValueError),
        ({"env": {"A": "a\0"}}, ValueError),
        ({"env": {"A": "\udc80"}}, ValueError),
        ({"files": ["a"]}, TypeError),
        ({"files": {"a": None}}, TypeError),
        ({"files": {1: "a"}}, TypeError),
        ({"files": {"": "a"}}, ValueError),
        ({"files": {"../a": "a"}}, ValueError),
        ({"files": {"a\0": "a"}}, ValueError),
        ({"files": {"a": "\udc80"}}, ValueError),
        ({"env": {"A": "1"}, "session_id": "s"}, ConfigurationError),
        ({"files": {"a": "1"}, "session_id": "s"}, ConfigurationError),
    ],
)
def test_what_is_malformed_is_refused_at_once(
    options: dict[str, Any], kind: type[Exception], make_client: MakeClient
) -> None:
    with pytest.raises(kind):
        make_client(**options)


def test_they_are_not_shown_and_not_kept(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="agentcube")
    client = make_client(env={"TOKEN": SECRET}, files={"token": SECRET})
    settings = client._session.settings
    assert SECRET not in repr(client) + repr(settings)
    assert settings.given.env == {"TOKEN": SECRET}
    client.start()
    assert caplog.records
    assert SECRET not in caplog.text
    assert client._session.settings.given.env == {}
    assert client._session.settings.given.files == {}
