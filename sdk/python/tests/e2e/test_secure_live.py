"""Encryption from end to end, against a running AgentCube."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from peer import new_private_key

from agentcube import (
    AuthenticationError,
    CodeInterpreterClient,
    SessionEndedError,
)

Pause = Callable[[CodeInterpreterClient], None]


class Tap:
    """Somebody on the way who sees all bytes, and may change them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._to = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.seen = bytearray()
        self.change: Callable[[bytes], bytes] = lambda data: data
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                self._ends += (client, server)
                for source, target, change in ((client, server, True), (server, client, False)):
                    thread = threading.Thread(target=self._carry, args=(source, target, change))
                    self._threads.append(thread)
                    thread.start()

    def _carry(self, source: socket.socket, target: socket.socket, change: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.seen += data
                target.sendall(self.change(data) if change else data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def tap(router_url: str) -> Iterator[Tap]:
    found = Tap(router_url)
    yield found
    found.close()


def test_nobody_on_the_way_can_read(tap: Tap, tmp_path: Path, pause: Pause) -> None:
    with CodeInterpreterClient(router_url=tap.url) as client:
        assert client.execute_command("echo secret-output") == "secret-output\n"
        source, target = tmp_path / "in", tmp_path / "out"
        source.write_bytes(b"secret-content" * 100_000)
        client.upload_file(str(source), "a b/ü.bin")
        client.download_file("a b/ü.bin", str(target))
        assert target.read_bytes() == source.read_bytes()
        assert client.run_code("python", "print('secret' + '-result')") == "secret-result\n"
        pause(client)
        assert client.execute_command("echo awake") == "awake\n"
    assert tap.seen
    for secret in (b"secret-", b"Bearer", b"api/execute", b"agentcube-sdk"):
        assert secret not in tap.seen


def test_plain_text_can_be_asked_for(tap: Tap) -> None:
    with CodeInterpreterClient(router_url=tap.url, encrypt=False) as client:
        client.execute_command("echo in-plain-text")
    assert b"in-plain-text" in tap.seen


def test_what_is_changed_on_the_way_does_nothing(tap: Tap) -> None:
    with CodeInterpreterClient(router_url=tap.url) as client:
        client.execute_command("echo first > mark")
        tap.change = lambda data: data[:-1] + bytes([data[-1] ^ 1])
        with pytest.raises(Exception, match="connection"):
            client.execute_command("echo second >> mark")
        tap.change = lambda data: data
        assert client.execute_command("cat mark") == "first\n"


def test_another_key_is_told() -> None:
    with CodeInterpreterClient() as client:
        client.execute_command("true")
        stranger = CodeInterpreterClient(
            session_id=client.session_id,
            private_key=new_private_key(),
        )
        with pytest.raises(AuthenticationError, match="another key"):
            stranger.execute_command("true")


def test_the_end_is_told() -> None:
    with CodeInterpreterClient() as client:
        client.execute_command("true")
        other = CodeInterpreterClient(
            session_id=client.session_id,
            private_key=client.export_key(),
        )
        other.execute_command("true")
    with pytest.raises(SessionEndedError) as caught:
        other.execute_command("true")
    assert caught.value.fate == "deleted"
