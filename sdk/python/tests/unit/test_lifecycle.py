from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeClient
from peer import Handler, Peer, new_private_key, stalled

from agentcube import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    CodeInterpreterClient,
    InternalServerError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SessionEndedError,
)

CREATE = "/v1/code-interpreter"
SESSIONS = "/v1/code-interpreter/sessions/"
BUSY = {"error": "server overloaded", "code": "SERVER_OVERLOADED"}


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which are not waited for."""
    slept: list[float] = []
    monkeypatch.setattr("agentcube._session.time.sleep", slept.append)
    return slept


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
    with make_client(session_id=first.session_id, private_key=pem) as second:
        assert second.execute_command(["cat", "note"]) == "kept"
        assert len(peer.requests("POST", CREATE)) == 1
    assert peer.live == []


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


# Attempts


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


# Forgotten clients


def test_a_forgotten_client_is_warned_about_and_its_session_deleted(peer: Peer) -> None:
    client = CodeInterpreterClient(workload_manager_url=peer.url, router_url=peer.url)
    client.start()
    with pytest.warns(ResourceWarning, match=r"never stopped.*call stop"):
        del client
    assert peer.live == []


def test_a_forgotten_client_without_a_session_is_not_warned_about(peer: Peer) -> None:
    CodeInterpreterClient(workload_manager_url=peer.url, router_url=peer.url)
    gc.collect()


def test_a_forgotten_client_closes_its_connections(peer: Peer) -> None:
    """One that is left open would give a ResourceWarning, which fails the tests."""
    url = peer.url
    client = CodeInterpreterClient("missing", workload_manager_url=url, router_url=url)
    with pytest.raises(NotFoundError):
        client.start()
    del client
    gc.collect()


def test_a_forgotten_attached_client_leaves_its_session(
    peer: Peer, make_client: MakeClient
) -> None:
    with make_client() as owner:
        url = peer.url
        CodeInterpreterClient(
            workload_manager_url=url, router_url=url, session_id=owner.session_id
        ).start()
        gc.collect()
        assert len(peer.live) == 1


def run_python(program: str, peer: Peer) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(program)],
        env={**os.environ, "WORKLOAD_MANAGER_URL": peer.url, "ROUTER_URL": peer.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_program_that_forgets_to_stop(peer: Peer) -> None:
    done = run_python(
        """
        from agentcube import CodeInterpreterClient
        client = CodeInterpreterClient()
        print(client.execute_command("echo ran"))
        """,
        peer,
    )
    assert done.stdout == "ran\n\n"
    assert done.returncode == 0
    assert "ResourceWarning" in done.stderr
    assert peer.live == []


def test_a_child_process_leaves_its_parents_session_alone(peer: Peer) -> None:
    done = run_python(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from agentcube import CodeInterpreterClient
        with CodeInterpreterClient() as client:
            client.execute_command("true")
            pid = os.fork()
            if pid == 0:
                print(client.execute_command("echo child"), end="", flush=True)
                sys.exit(0)
            _, status = os.waitpid(pid, 0)
            assert status == 0
            print(client.execute_command("echo parent"), end="")
        """,
        peer,
    )
    assert done.stderr == ""
    assert done.stdout == "child\nparent\n"
    assert len(peer.requests("DELETE")) == 1


def test_a_child_process_that_ends_without_a_block_deletes_nothing(peer: Peer) -> None:
    done = run_python(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from agentcube import CodeInterpreterClient
        client = CodeInterpreterClient()
        client.start()
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        os.waitpid(pid, 0)
        print(client.execute_command("echo parent"), end="")
        client.stop()
        """,
        peer,
    )
    assert (done.stdout, done.stderr) == ("parent\n", "")


def test_a_child_process_makes_connections_of_its_own(peer: Peer) -> None:
    done = run_python(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from agentcube import CodeInterpreterClient
        with CodeInterpreterClient() as client:
            for _ in range(3):
                pid = os.fork()
                if pid == 0:
                    client.execute_command("true")
                    os._exit(0)
                os.waitpid(pid, 0)
            client.execute_command("true")
        """,
        peer,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert peer.state.connections == 4


# Threads


def test_many_threads_share_one_session(peer: Peer, client: CodeInterpreterClient) -> None:
    outputs: list[str] = []

    def work(number: int) -> None:
        outputs.append(client.run_code("sh", f"echo {number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs, key=int) == [f"{number}\n" for number in range(12)]
    assert len(peer.state.sessions) == 1
    client.stop()


def test_a_signal_handler_may_stop_the_client(peer: Peer, client: CodeInterpreterClient) -> None:
    def create_late(handler: Handler) -> None:
        handler.seen.body = handler.rfile.read(int(handler.headers["Content-Length"]))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert handled.wait(60)
        handler.create("r")

    handled = threading.Event()

    def handle(*_: object) -> None:
        client.stop()
        handled.set()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        peer.on("POST", CREATE, create_late)
        with pytest.raises(ClientClosedError):
            client.start()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(peer.state.sessions) == 1
    assert peer.live == []


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


def test_verbose_shows_the_log(peer: Peer) -> None:
    program = """
        from agentcube import CodeInterpreterClient
        with CodeInterpreterClient(verbose=%s) as client:
            client.execute_command("true")
        """
    assert "agentcube DEBUG session created" in run_python(program % True, peer).stderr
    assert run_python(program % False, peer).stderr == ""
