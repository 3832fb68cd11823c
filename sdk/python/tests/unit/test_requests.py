from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from typing import Any

import pytest

from agentcube import FileTransferError, _forms, _requests, _settings

SETTINGS = _settings.Settings(
    name="tmpl",
    namespace="ns",
    ttl=60,
    workload_manager=_settings.parse_url("http://wm.example/control", "test"),
    router=_settings.parse_url("http://router.example/some/where/", "test"),
    tokens=_settings.TokenSettings(),
    timeouts=_settings.Timeouts(),
    max_retries=0,
)
BASE = "/some/where/v1/namespaces/ns/code-interpreters/tmpl/invocations/api"


def body_of(request: _requests.Request) -> Any:
    assert isinstance(request.body, bytes)
    return json.loads(request.body)


def test_create() -> None:
    request = _requests.create_session(SETTINGS, "KEY", "idem")
    assert (request.method, request.target) == ("POST", "/control/v1/code-interpreter")
    assert body_of(request) == {
        "name": "tmpl",
        "namespace": "ns",
        "ttl": 60,
        "metadata": {},
        "publicKey": "KEY",
    }
    assert request.headers["Idempotency-Key"] == "idem"
    assert "publicKey" not in body_of(_requests.create_session(SETTINGS, None, "idem"))


def test_delete_escapes_the_id() -> None:
    request = _requests.delete_session(SETTINGS, "a/../b?c")
    assert request.target == "/control/v1/code-interpreter/sessions/a%2F..%2Fb%3Fc"


def test_execute() -> None:
    request = _requests.execute(SETTINGS, "sid", ["ls", "-l"], 30, "sub", {"A": "b"})
    assert request.target == f"{BASE}/execute"
    assert request.headers["x-agentcube-session-id"] == "sid"
    assert body_of(request) == {
        "command": ["ls", "-l"],
        "timeout": "30s",
        "working_dir": "sub",
        "env": {"A": "b"},
    }
    assert isinstance(request.body, bytes)
    assert request.body_sha256 == hashlib.sha256(request.body).hexdigest()
    assert request.read_timeout > 32
    assert set(body_of(_requests.execute(SETTINGS, "sid", ["ls"], 1))) == {"command", "timeout"}


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A": "\0"}, {"A": "\ud800"}])
def test_malformed_environments(env: Any) -> None:
    with pytest.raises(ValueError, match="env"):
        _requests.execute(SETTINGS, "sid", ["ls"], 1, env=env)


@pytest.mark.parametrize("env", [{"A": 1}, {1: "A"}, ["A=b"]])
def test_environments_of_wrong_type(env: Any) -> None:
    with pytest.raises(TypeError, match="env"):
        _requests.execute(SETTINGS, "sid", ["ls"], 1, env=env)


def test_only_json_is_hashed() -> None:
    multipart = _forms.Multipart("p", "p", io.BytesIO(b"x"), 1, None)
    for request in (
        _requests.upload_file(SETTINGS, "sid", multipart),
        _requests.download_file(SETTINGS, "sid", "p"),
        _requests.list_files(SETTINGS, "sid", "p"),
    ):
        assert request.body_sha256 is None
    assert _requests.write_file(SETTINGS, "sid", "p", b"x").body_sha256 is not None


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a.txt", "a.txt"),
        ("/workspace/a.txt", "workspace/a.txt"),
        ("a/b c.txt", "a/b%20c.txt"),
        ("what?#100%.txt", "what%3F%23100%25.txt"),
        ("a%2Fb", "a%252Fb"),
        ("ünï/日本", "%C3%BCn%C3%AF/%E6%97%A5%E6%9C%AC"),
        ("line\nbreak", "line%0Abreak"),
        ("back\\slash", "back%5Cslash"),
        ("./a//b/../c", "a/c"),
        ("//double", "double"),
        ("/../up", "up"),
        ("...", "..."),
        ("index.html", "index.html"),
        ("a;b:c@d&e=f+g", "a%3Bb%3Ac%40d%26e%3Df%2Bg"),
    ],
)
def test_download_targets(path: str, target: str) -> None:
    assert _requests.download_file(SETTINGS, "sid", path).target == f"{BASE}/files/{target}"


def test_list_targets() -> None:
    request = _requests.list_files(SETTINGS, "sid", "a b&c/#d")
    assert request.target == f"{BASE}/files?path=a%20b%26c%2F%23d"


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", "..", "../a", "a/../../b", "./../a"])
def test_malformed_paths(path: str) -> None:
    with pytest.raises(ValueError, match="remote_path"):
        _requests.remote_path(path)


@pytest.mark.parametrize("path", [None, b"a", 3])
def test_paths_of_wrong_type(path: Any) -> None:
    with pytest.raises(TypeError, match="remote_path"):
        _requests.remote_path(path)


def test_multipart_is_as_long_as_it_says() -> None:
    content = bytes(range(256)) * 4000
    multipart = _forms.Multipart("dir/päth", 'na"me\r\n', io.BytesIO(content), len(content), None)
    raw = b"".join(multipart)
    assert len(raw) == multipart.content_length
    assert raw.count(content) == 1
    assert b'filename="na%22me%0D%0A"' in raw
    assert raw.index(b'name="path"') < raw.index(b'name="mode"') < raw.index(b'name="file"')


def test_progress_counts_the_content_alone() -> None:
    calls: list[tuple[int, int]] = []
    size = 600_000
    multipart = _forms.Multipart(
        "p", "p", io.BytesIO(b"x" * size), size, lambda done, total: calls.append((done, total))
    )
    list(multipart)
    assert calls[0] == (0, size)
    assert calls[-1] == (size, size)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_file_that_shrinks() -> None:
    with pytest.raises(FileTransferError, match="shorter"):
        list(_forms.Multipart("p", "p", io.BytesIO(b"xx"), 3, None))


def test_a_file_that_grows_is_sent_as_it_was() -> None:
    multipart = _forms.Multipart("p", "p", io.BytesIO(b"xxyy"), 2, None)
    assert b"yy" not in b"".join(multipart)


def test_bodies_are_not_shown() -> None:
    request = _requests.write_file(SETTINGS, "sid", "p", b"very-secret")
    assert "dmVyeS1zZWNyZXQ" not in repr(request)
    assert dataclasses.is_dataclass(request)
