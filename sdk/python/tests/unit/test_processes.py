from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from conftest import MakeClient
from peer import Handler, Peer

from agentcube import (
    ClientClosedError,
    CodeInterpreterClient,
    NotFoundError,
)

CREATE = "/v1/code-interpreter"
SESSIONS = "/v1/code-interpreter/sessions/"


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


def test_verbose_shows_the_log(peer: Peer) -> None:
    program = """
        from agentcube import CodeInterpreterClient
        with CodeInterpreterClient(verbose=%s) as client:
            client.execute_command("true")
        """
    assert "agentcube DEBUG session created" in run_python(program % True, peer).stderr
    assert run_python(program % False, peer).stderr == ""
