from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from peer import Peer, stalled

from agentcube import (
    AgentCubeError,
    APIConnectionError,
    APITimeoutError,
    CodeInterpreterClient,
    CommandExecutionError,
    CommandTimeoutError,
    InvalidResponseError,
    UnsupportedLanguageError,
    _calls,
)

EXECUTE = "/invocations/api/execute"


def test_string_commands_are_for_the_shell(client: CodeInterpreterClient) -> None:
    assert client.execute_command("echo 'Session started'") == "Session started\n"
    assert client.execute_command("printf a && printf b | tr b c; X=1; printf $X") == "ac1"
    assert client.execute_command("touch one two && ls *") == "one\ntwo\n"


def test_list_commands_are_not(client: CodeInterpreterClient) -> None:
    assert client.execute_command(["printf", "%s", "$HOME; ls * && 'x'"]) == "$HOME; ls * && 'x'"
    assert client.execute_command(("printf", "x")) == "x"


def test_unicode(client: CodeInterpreterClient) -> None:
    assert client.execute_command("printf 'ünï日本🙂'") == "ünï日本🙂"


def test_working_directory_and_environment(client: CodeInterpreterClient) -> None:
    client.write_file("", "sub/file")
    out = client.execute_command("ls; printf $WORD", working_dir="sub", env={"WORD": "w"})
    assert out == "file\nw"


def test_a_failed_command(client: CodeInterpreterClient) -> None:
    with pytest.raises(CommandExecutionError, match=r"exit 3\): no") as caught:
        client.execute_command("echo out; echo no >&2; exit 3")
    error = caught.value
    assert (error.exit_code, error.stdout, error.stderr) == (3, "out\n", "no\n")
    assert error.command == "echo out; echo no >&2; exit 3"


def test_a_result_does_not_raise(client: CodeInterpreterClient) -> None:
    result = client.execute_command_result("echo out; echo no >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "no\n")
    assert result["exit_code"] == 3
    assert result.duration > 0


def test_a_program_that_is_not_there(client: CodeInterpreterClient) -> None:
    with pytest.raises(CommandExecutionError, match="not found") as caught:
        client.execute_command(["no-such-program"])
    assert "no shell" not in str(caught.value)
    with pytest.raises(CommandExecutionError, match="not found") as caught:
        client.execute_command("no-such-program")
    assert "no shell" not in str(caught.value)


@pytest.mark.parametrize(
    "stderr",
    [
        'exec: "sh": executable file not found in $PATH',
        "fork/exec /bin/sh: no such file or directory",
    ],
)
def test_an_image_without_a_shell(stderr: str, peer: Peer, client: CodeInterpreterClient) -> None:
    answer = {"exit_code": 1, "stdout": "", "stderr": stderr}
    peer.answer("POST", EXECUTE, 200, answer, times=2)
    with pytest.raises(CommandExecutionError, match="pass a list instead"):
        client.execute_command("true")
    with pytest.raises(CommandExecutionError) as caught:
        client.execute_command(["sh", "-c", "true"])
    assert "pass a list" not in str(caught.value)


def test_a_command_that_takes_too_long(client: CodeInterpreterClient) -> None:
    with pytest.raises(CommandTimeoutError, match="timeout=") as caught:
        client.execute_command("echo partial; sleep 60", timeout=0.3)
    assert caught.value.exit_code == 124
    assert caught.value.stdout == "partial\n"
    assert client.execute_command_result("sleep 60", timeout=0.1).timed_out


def test_a_program_that_itself_says_124(client: CodeInterpreterClient) -> None:
    with pytest.raises(CommandExecutionError) as caught:
        client.execute_command("exit 124")
    assert not isinstance(caught.value, CommandTimeoutError)


def test_a_server_that_does_not_answer(
    peer: Peer, client: CodeInterpreterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentcube._requests._EXECUTE_GRACE", 0.05)
    release = threading.Event()
    peer.on("POST", EXECUTE, stalled(release))
    with pytest.raises(APITimeoutError, match="raise the option timeout="):
        client.execute_command("true", timeout=0.05)
    release.set()
    assert client.execute_command("echo again") == "again\n"


def test_a_command_is_never_sent_twice(peer: Peer, client: CodeInterpreterClient) -> None:
    peer.on("POST", EXECUTE, lambda handler: handler.drop())
    with pytest.raises(APIConnectionError, match="lost"):
        client.execute_command("true")
    assert len(peer.requests("POST", EXECUTE)) == 1


def test_an_answer_that_breaks_off(peer: Peer, client: CodeInterpreterClient) -> None:
    def half(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b'{"exit_code": 0, ')
        handler.close_connection = True

    peer.on("POST", EXECUTE, half)
    with pytest.raises(APIConnectionError, match="lost"):
        client.execute_command("true")


def test_an_answer_without_end(
    peer: Peer, client: CodeInterpreterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "MAX_ANSWER", 100_000)
    peer.answer("POST", EXECUTE, 200, b" " * 1_000_000)
    with pytest.raises(InvalidResponseError, match="longer than"):
        client.execute_command("true")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"exit_code": 0}', b"[]"])
def test_an_answer_of_another_kind(body: bytes, peer: Peer, client: CodeInterpreterClient) -> None:
    peer.answer("POST", EXECUTE, 200, body)
    with pytest.raises(InvalidResponseError):
        client.execute_command("true")


def test_large_output(client: CodeInterpreterClient) -> None:
    out = client.execute_command("head -c 3000000 /dev/zero | tr '\\0' x")
    assert len(out) == 3_000_000


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.execute_command(""),
        lambda c: c.execute_command("true", timeout=0),
        lambda c: c.execute_command("true", timeout="30"),
        lambda c: c.execute_command(b"true"),
        lambda c: c.execute_command("true", env={"A=": ""}),
        lambda c: c.execute_command("true", working_dir="../.."),
        lambda c: c.run_code("perl", "1"),
        lambda c: c.run_code("python", b"1"),
        lambda c: c.run_code("python", "\ud800"),
        lambda c: c.run_code("python", "1", timeout=-1),
        lambda c: c.write_file(3, "a"),
        lambda c: c.write_file("a", ""),
        lambda c: c.list_files("../.."),
        lambda c: c.upload_file("/no/such/file", "a"),
        lambda c: c.download_file("a", "/no/such/folder/file"),
    ],
)
def test_what_is_malformed_is_refused(
    call: Callable[[CodeInterpreterClient], object], peer: Peer, client: CodeInterpreterClient
) -> None:
    with pytest.raises((ValueError, TypeError, FileNotFoundError)):
        call(client)
    assert peer.requests("POST", "/invocations/") == []


# Code


def test_python(client: CodeInterpreterClient) -> None:
    code = """
    import math
    print(f"Pi is approximately {math.pi:.4f}")
    """
    assert client.run_code("python", code) == "Pi is approximately 3.1416\n"


def test_bash(client: CodeInterpreterClient) -> None:
    assert client.run_code("bash", "[[ a == a ]] && echo {1..3}") == "1 2 3\n"


def test_the_line_numbers_of_a_traceback_are_those_of_the_string(
    client: CodeInterpreterClient,
) -> None:
    with pytest.raises(CommandExecutionError, match="line 3") as caught:
        client.run_code("python", "\n    x = 1\n    1 / 0\n")
    assert "ZeroDivisionError" in caught.value.stderr


def test_code_can_import_files_of_the_workspace(client: CodeInterpreterClient) -> None:
    client.write_file("VALUE = 7", "own_module.py")
    assert client.run_code("python", "import own_module; print(own_module.VALUE)") == "7\n"


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("code", ["print(1)", "raise SystemExit(3)", "syntax error"])
def test_scripts_are_removed(
    code: str, older: bool, peer: Peer, client: CodeInterpreterClient
) -> None:
    peer.state.older_agent = older
    with client:
        try:
            client.run_code("python", code)
        except CommandExecutionError:
            assert code != "print(1)"
        assert [entry.name for entry in client.list_files() if "script" in entry.name] == []
    # To write the script and to run it; older agents have to be told to remove it.
    assert len(peer.requests("POST", "/invocations/")) == (3 if older else 2)


def test_a_script_that_cannot_be_removed_is_not_an_error(
    peer: Peer, client: CodeInterpreterClient
) -> None:
    peer.state.older_agent = True
    seen = 0

    def second_fails(handler: Any) -> bool:
        nonlocal seen
        if EXECUTE in handler.path:
            seen += 1
            if seen == 2:
                handler.drop()
                return True
        return False

    peer.intercept(second_fails)
    assert client.run_code("python", "print(1)") == "1\n"
    assert seen == 2


def test_code_that_takes_too_long(client: CodeInterpreterClient) -> None:
    with pytest.raises(CommandTimeoutError, match="timeout="):
        client.run_code("sh", "sleep 60", timeout=0.2)


def test_an_unknown_language(client: CodeInterpreterClient) -> None:
    with pytest.raises(UnsupportedLanguageError, match="bash"):
        client.run_code("perl", "1")


def test_ctrl_c_hangs_up(
    peer: Peer, client: CodeInterpreterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is closed, by which the server learns that nobody waits any more."""
    closed = threading.Event()

    def wait_for_the_end(handler: Any) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        if handler.rfile.read(1) == b"":
            closed.set()
        handler.close_connection = True

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    client.start()
    peer.on("POST", EXECUTE, wait_for_the_end)
    with monkeypatch.context() as patch:
        patch.setattr("http.client.HTTPConnection.getresponse", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.execute_command("true")
    assert closed.wait(60)
    assert client.execute_command("echo again") == "again\n"


# Signatures


def test_every_request_is_signed_by_the_sessions_key(
    peer: Peer, client: CodeInterpreterClient
) -> None:
    before = int(time.time())
    client.execute_command("true")
    client.write_file("x", "x")
    client.list_files()
    for seen in peer.requests("POST", "/invocations/") + peer.requests("GET", "/invocations/"):
        assert seen.claims["iss"] == "sdk-client"
        assert before <= seen.claims["iat"] <= time.time()
        assert seen.claims["exp"] == seen.claims["iat"] + 300
        assert ("body_sha256" in seen.claims) == (seen.method == "POST")
        assert seen.headers["x-agentcube-session-id"] == client.session_id


def test_the_base_class_catches_everything(peer: Peer, client: CodeInterpreterClient) -> None:
    for status in (302, 404, 500):
        peer.answer("POST", EXECUTE, status, {"error": "x"})
        with pytest.raises(AgentCubeError):
            client.execute_command("true")
