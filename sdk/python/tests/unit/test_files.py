from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeClient
from peer import Peer, stalled

from agentcube import (
    APITimeoutError,
    BadRequestError,
    CodeInterpreterClient,
    DiskFullError,
    FileTransferError,
    NotFoundError,
    PayloadTooLargeError,
    SessionEndedError,
    _requests,
)

FILES = "/invocations/api/files"
ODD_NAMES = [
    "plain.txt",
    "with blank.txt",
    "what?.txt",
    "hash#tag",
    "100%",
    "%2e%2e%2f",
    "a+b&c=d;e",
    "ünïcode-日本🙂",
    "line\nbreak",
    "tab\tquote\"'`",
    "back\\slash",
    "-rf",
    "...",
    "~",
    "*",
    "index.html",
    "dir/with/sub folders/ü?#",
    "n" * 200,
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_go_there_and_back(
    name: str, peer: Peer, client: CodeInterpreterClient, tmp_path: Path
) -> None:
    local, back = tmp_path / "local", tmp_path / "back"
    local.write_bytes(name.encode())
    client.upload_file(local, name)
    assert (peer.only.root / name).read_bytes() == name.encode()
    client.download_file(name, back)
    assert back.read_bytes() == name.encode()
    client.write_file(b"written", name)
    client.download_file("/workspace/" + name, back)
    assert back.read_bytes() == b"written"
    parent, _, last = name.rpartition("/")
    assert last in [entry.name for entry in client.list_files(parent or ".")]


@pytest.mark.parametrize("size", [0, 1, 256 * 1024 - 1, 256 * 1024, 3_000_001])
def test_sizes(size: int, client: CodeInterpreterClient, tmp_path: Path) -> None:
    local, back = tmp_path / "local", tmp_path / "back"
    content = os.urandom(size)
    local.write_bytes(content)
    sent: list[tuple[int, int]] = []
    received: list[tuple[int, int]] = []
    client.upload_file(local, "f", progress=lambda *call: sent.append(call))
    client.download_file("f", back, progress=lambda *call: received.append(call))
    assert back.read_bytes() == content
    for calls in (sent, received):
        assert calls[0] == (0, size)
        assert calls[-1] == (size, size)


def test_written_text_is_utf8(peer: Peer, client: CodeInterpreterClient) -> None:
    client.write_file("ünï\r\n", "t")
    client.write_file("", "empty")
    assert (peer.only.root / "t").read_bytes() == "ünï\r\n".encode()
    assert (peer.only.root / "empty").read_bytes() == b""


def test_large_content_is_not_sent_as_json(
    peer: Peer, client: CodeInterpreterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_requests, "MAX_JSON_CONTENT", 10)
    client.write_file(b"x" * 11, "dir/large")
    (seen,) = peer.requests("POST", FILES)
    assert seen.headers["content-type"].startswith("multipart/form-data")
    assert (peer.only.root / "dir/large").read_bytes() == b"x" * 11


def test_a_listing(client: CodeInterpreterClient) -> None:
    client.write_file("abc", "b")
    client.write_file("", "a/c")
    a, b = client.list_files()
    assert (a.name, a.is_dir) == ("a", True)
    assert (b.name, b.size, b.is_dir) == ("b", 3, False)
    assert b["name"] == "b"
    assert b.modified is not None
    assert client.list_files("/workspace/a")[0].name == "c"


def test_a_huge_listing(peer: Peer, client: CodeInterpreterClient) -> None:
    entries = [{"name": f"file-{i}", "size": i, "is_dir": False} for i in range(100_000)]
    peer.answer("GET", FILES, 200, {"files": entries})
    listed = client.list_files()
    assert len(listed) == 100_000
    assert listed[-1].size == 99_999


def test_a_listing_of_nothing(client: CodeInterpreterClient) -> None:
    with pytest.raises(NotFoundError, match="Directory not found"):
        client.list_files("missing")


# Downloads that fail


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A local file that was there before; nothing may happen to it."""
    file = tmp_path / "target"
    file.write_text("before")
    return file


def untouched(target: Path) -> bool:
    return target.read_text() == "before" and [file.name for file in target.parent.iterdir()] == [
        "target"
    ]


def test_a_file_that_is_not_there(client: CodeInterpreterClient, target: Path) -> None:
    with pytest.raises(NotFoundError, match="File not found") as caught:
        client.download_file("missing", target)
    assert caught.value.code == "NOT_FOUND"
    assert untouched(target)


def test_a_folder_is_not_a_file(client: CodeInterpreterClient, target: Path) -> None:
    client.write_file("x", "folder/x")
    with pytest.raises(BadRequestError, match="directory"):
        client.download_file("folder", target)
    assert untouched(target)


def broken(length: str | None, content: bytes, headers: dict[str, str] | None = None) -> Any:
    def act(handler: Any) -> None:
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", length)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = True

    return act


@pytest.mark.parametrize(
    "act",
    [
        broken("1000000", b"x" * 600_000),
        broken("10", b""),
        broken(None, b"5\r\nhello\r\n", {"Transfer-Encoding": "chunked"}),
        broken(None, b"5\r\nhel", {"Transfer-Encoding": "chunked"}),
        broken(None, b"no length at all"),
        broken("5", b"hello", {"Content-Encoding": "gzip"}),
    ],
)
def test_a_broken_download(
    act: Any, peer: Peer, client: CodeInterpreterClient, target: Path
) -> None:
    client.start()
    peer.on("GET", FILES, act)
    with pytest.raises(FileTransferError):
        client.download_file("f", target)
    assert untouched(target)
    client.write_file("x", "f")
    client.download_file("f", target)  # the connection was not kept
    assert target.read_text() == "x"


def test_a_chunked_download(peer: Peer, client: CodeInterpreterClient, target: Path) -> None:
    content = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    peer.on("GET", FILES, broken(None, content, {"Transfer-Encoding": "chunked"}))
    calls: list[tuple[int, int]] = []
    client.download_file("f", target, progress=lambda *call: calls.append(call))
    assert target.read_text() == "hello world"
    assert calls[0] == (0, -1)
    assert calls[-1] == (11, -1)


def test_a_download_that_stalls(peer: Peer, make_client: MakeClient, target: Path) -> None:
    release = threading.Event()

    def stall(handler: Any) -> None:
        broken("10", b"half")(handler)
        handler.wfile.flush()
        release.wait(60)

    client = make_client(transfer_timeout=0.2)
    client.start()
    peer.on("GET", FILES, stall)
    with pytest.raises(FileTransferError, match="transfer_timeout="):
        client.download_file("f", target)
    release.set()
    assert untouched(target)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, OSError])
def test_a_download_that_is_given_up(
    error: type[BaseException], client: CodeInterpreterClient, target: Path
) -> None:
    def give_up(done: int, total: int) -> None:
        if done:
            raise error

    client.write_file(b"x" * 1000, "f")
    with pytest.raises(error):
        client.download_file("f", target, progress=give_up)
    assert untouched(target)
    client.download_file("f", target)


def test_local_places_that_cannot_be_written(
    peer: Peer, client: CodeInterpreterClient, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(IsADirectoryError):
        client.download_file("f", tmp_path)
    with pytest.raises(FileNotFoundError):
        client.download_file("f", tmp_path / "missing" / "f")
    with pytest.raises(ValueError, match="not a regular file"):
        client.download_file("f", fifo)
    with pytest.raises(ValueError, match="not a regular file"):
        client.download_file("f", "/dev/null")
    assert peer.requests("GET", FILES) == []
    assert [file.name for file in tmp_path.iterdir()] == ["fifo"]


def test_permissions_of_a_downloaded_file(client: CodeInterpreterClient, tmp_path: Path) -> None:
    client.write_file("x", "f")
    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "link"
    old.touch()
    old.chmod(0o604)
    link.symlink_to(old)
    before = os.umask(0o027)
    try:
        client.download_file("f", new)
        client.download_file("f", link)
    finally:
        os.umask(before)
    assert new.stat().st_mode & 0o777 == 0o640
    assert old.stat().st_mode & 0o777 == 0o604
    assert link.is_symlink()
    assert old.read_text() == "x"


def test_names_relative_to_the_current_folder(
    client: CodeInterpreterClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("a,b\n")
    client.upload_file("./data.csv", "/workspace/data.csv")
    client.download_file("/workspace/data.csv", "./copy.csv")
    assert Path("copy.csv").read_text() == "a,b\n"


# Uploads that fail


def test_local_files_that_cannot_be_read(
    peer: Peer, client: CodeInterpreterClient, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(FileNotFoundError):
        client.upload_file(tmp_path / "missing", "f")
    with pytest.raises(IsADirectoryError):
        client.upload_file(tmp_path, "f")
    with pytest.raises(ValueError, match="not a regular file"):
        client.upload_file(fifo, "f")
    with pytest.raises(ValueError, match="not a regular file"):
        client.upload_file("/dev/zero", "f")
    assert peer.state.seen == []


def test_a_file_without_permission(
    peer: Peer, client: CodeInterpreterClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    file.touch()

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Not by its mode: the tests may run as root, who can read everything.
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError):
        client.upload_file(file, "f")
    assert peer.state.seen == []


def test_an_early_refusal_of_a_large_upload(
    peer: Peer, client: CodeInterpreterClient, tmp_path: Path
) -> None:
    """The server answers and hangs up while the client is still sending."""
    local = tmp_path / "large"
    with local.open("wb") as file:
        file.truncate(64 * 1024 * 1024)

    refused = threading.Event()

    def refuse(handler: Any) -> None:
        handler.answer(413, {"error": "request body too large", "code": 413, "reason": "TOO_LARGE"})
        # With input unread this resets the connection, under the client's hands.
        handler.connection.close()
        handler.close_connection = True
        refused.set()

    def wait_for_the_refusal(done: int, total: int) -> None:
        if done:
            assert refused.wait(60)

    client.start()
    peer.on("POST", FILES, refuse)
    with pytest.raises(PayloadTooLargeError, match="too large"):
        client.upload_file(local, "large", progress=wait_for_the_refusal)


def test_an_upload_that_is_given_up(
    peer: Peer, client: CodeInterpreterClient, tmp_path: Path
) -> None:
    local = tmp_path / "f"
    local.write_bytes(b"x" * 1_000_000)

    def give_up(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    client.start()
    with pytest.raises(KeyboardInterrupt):
        client.upload_file(local, "f", progress=give_up)
    client.upload_file(local, "f")
    assert (peer.only.root / "f").stat().st_size == 1_000_000


def test_a_full_disk(peer: Peer, client: CodeInterpreterClient) -> None:
    peer.answer("POST", FILES, 507, {"error": "disk full", "code": 507, "reason": "DISK_FULL"})
    with pytest.raises(DiskFullError) as caught:
        client.write_file("x", "f")
    assert caught.value.code == "DISK_FULL"


def test_a_session_that_ends_between(
    peer: Peer, client: CodeInterpreterClient, target: Path
) -> None:
    client.start()
    peer.only.fate = "expired"
    with pytest.raises(SessionEndedError):
        client.download_file("f", target)
    with pytest.raises(SessionEndedError):
        client.upload_file(target, "f")
    assert untouched(target)


def test_a_write_that_is_not_answered(peer: Peer, make_client: MakeClient) -> None:
    release = threading.Event()
    client = make_client(control_timeout=0.1)
    client.start()
    peer.on("POST", FILES, stalled(release))
    with pytest.raises(APITimeoutError, match="control_timeout="):
        client.write_file("x", "f")
    release.set()
