"""Keys: how they leave the client, and that they do so in no other way."""

from __future__ import annotations

import base64
import copy
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from between import USES
from conftest import MakeClient
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from peer import Peer, new_private_key

from agentcube import AgentCubeError, CodeInterpreterClient, ConfigurationError
from agentcube._auth import FormSigner, SessionKey, request_claims


def secrets_of(pem: str) -> list[str]:
    """What must not be read anywhere: lines of the text, and the numbers in it."""
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    numbers = key.private_numbers()
    lines = [line for line in pem.splitlines() if len(line) > 40]
    assert len(lines) > 10
    for number in (numbers.d, numbers.p, numbers.q):
        lines += [str(number), f"{number:x}"]
    return [*lines, base64.b64encode(pem.encode()).decode(), "PRIVATE KEY"]


# Exporting


def test_an_exported_key_is_the_key(peer: Peer, make_client: MakeClient) -> None:
    with make_client() as client:
        pem = client.export_key()
        assert pem.startswith("-----BEGIN PRIVATE KEY-----\n")
        assert pem.endswith("\n-----END PRIVATE KEY-----\n")
        key = load_pem_private_key(pem.encode(), None)
        assert isinstance(key, RSAPrivateKey)
        assert peer.only.key is not None
        assert key.public_key().public_numbers() == peer.only.key.public_numbers()
        assert client.export_key() == pem
        assert make_client(private_key=pem).export_key() == pem


def test_exporting_begins_no_session(peer: Peer, make_client: MakeClient) -> None:
    client = make_client()
    pem = client.export_key()
    assert peer.state.seen == []
    client.start()
    client.detach()
    assert client.export_key() == pem


def test_forks_have_other_keys(client: CodeInterpreterClient) -> None:
    with client, client.fork()[0] as fork:
        assert fork.export_key() != client.export_key()


def test_a_session_without_a_key_has_none_to_export(make_client: MakeClient) -> None:
    client = make_client(session_id="s-1")
    with pytest.raises(ConfigurationError, match=r"s-1 without private_key="):
        client.export_key()


PROGRAM = """
import json, os, sys
from agentcube import CodeInterpreterClient

with CodeInterpreterClient(**json.load(sys.stdin)) as client:
    print(client.execute_command("cat note"))
    client.write_file("from another process", "note")
"""


def run(program: str, given: dict[str, Any], peer: Peer, folder: Path) -> tuple[str, str]:
    """The output and the error output of a program in a process of its own."""
    urls = {"WORKLOAD_MANAGER_URL": peer.url, "ROUTER_URL": peer.url}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=json.dumps(given),
        env={**os.environ, **urls, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_another_process_goes_on_with_the_session(
    peer: Peer, make_client: MakeClient, tmp_path: Path
) -> None:
    peer.state.strict = True
    with make_client(name="custom-template", namespace="agentcube") as client:
        client.write_file("from the first process", "note")
        given = {"session_id": client.session_id, "private_key": client.export_key()}
        assert run(PROGRAM, given, peer, tmp_path) == ("from the first process\n", "")
        assert client.execute_command("cat note") == "from another process"


# What does not happen to them


def use_all(client: CodeInterpreterClient, peer: Peer, folder: Path) -> list[BaseException]:
    """Everything that the client does, and the exceptions of what fails."""
    (folder / "local").write_bytes(b"x" * 300_000)
    client.write_file("", "in/ü?#%&~.txt")
    for use in USES.values():
        use(client, folder)
    client.pause()
    with client.fork()[0] as fork:
        fork.list_files()
    client.checkpoint("kept")
    client.delete_checkpoint("kept")

    def refused_with(status: int) -> None:
        peer.answer("GET", "/api/files", status, {"error": "no", "detail": "JWT: expired"})
        client.list_files()

    caught: list[BaseException] = []
    failing: list[Callable[[], object]] = [
        lambda: client.execute_command("exit 3"),
        lambda: client.list_files("missing"),
        lambda: pickle.dumps(client),
        lambda: client.fork(0),
        lambda: client.upload_file(folder / "missing", "f"),
        lambda: refused_with(401),
        lambda: refused_with(410),
        lambda: refused_with(500),
    ]
    for fail in failing:
        with pytest.raises((AgentCubeError, TypeError, ValueError, OSError)) as info:
            fail()
        caught.append(info.value)
    return caught


def test_keys_are_not_shown(
    peer: Peer, make_client: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with make_client(verbose=True) as client:
        pem = client.export_key()
        caught = use_all(client, peer, tmp_path)
        key = client._session._key
        assert key is not None
        signer = FormSigner(key, request_claims("s", "POST", "/api/files", None), "p", "0644")
        things = [client, client._session, key, signer]
        shown = [f"{thing!r} {thing!s} {vars(thing)!r}" for thing in things]
    text = "\n".join(
        [
            caplog.text,
            *(repr(record.__dict__) for record in caplog.records),
            *shown,
            *(repr(error) + repr(error.__dict__) for error in caught),
            *("".join(traceback.format_exception(error)) for error in caught),
        ]
    )
    assert len(caught) == 8
    assert "session created" in caplog.text
    assert "answer POST" in caplog.text
    sent = "\n".join(repr(seen) for seen in peer.state.seen)
    for secret in secrets_of(pem):
        assert secret not in text
        assert secret not in sent


def test_keys_are_not_copied_by_accident(make_client: MakeClient) -> None:
    client = make_client()
    things: list[object] = [client, client._session, client._session._key]
    for thing in things:
        for act in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match=r"cannot (be )?pickle"):
                act(thing)


def test_who_pickles_a_client_is_told_what_to_do_instead(make_client: MakeClient) -> None:
    for act in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match=r"session_id= and private_key=.*export_key"):
            act(make_client())


@pytest.mark.parametrize("cut", [slice(100), slice(None, None, 2), slice(0)])
def test_a_malformed_key_is_not_quoted(cut: slice) -> None:
    pem = new_private_key()[cut]
    with pytest.raises(ConfigurationError) as caught:
        SessionKey(pem)
    error: BaseException | None = caught.value
    assert error is not None
    assert error.__context__ is error.__cause__ is None
    text = repr(error) + "".join(traceback.format_exception(error))
    for line in pem.decode().splitlines():
        assert line not in text or len(line) < 20


WATCHED = """
import json, os, sys
written, given = [], json.load(sys.stdin)

def watch(event, args):
    if event == "open" and not isinstance(args[0], int):
        flags = args[2] or 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or set(args[1] or "") & set("wax+"):
            written.append(os.path.relpath(args[0]))
    elif event in {"os.rename", "shutil.copyfile", "os.link", "os.symlink"}:
        written.append(os.path.relpath(args[1]))

sys.addaudithook(watch)
from agentcube import CodeInterpreterClient

for options in ({"private_key": given["pem"]}, {}):
    with CodeInterpreterClient(verbose=True, **options) as client:
        client.export_key()
        client.write_file("x", "a")
        client.upload_file("local", "b")
        client.download_file("b", "back")
        client.run_code("sh", "true")
        with client.fork()[0] as fork:
            fork.list_files()
json.dump(written, sys.stdout)
"""


def test_keys_are_never_on_disk(peer: Peer, tmp_path: Path) -> None:
    """Nothing is written but what was asked for; the program's log goes to stderr here."""
    (tmp_path / "local").write_bytes(b"x")
    pem = new_private_key().decode()
    out, log = run(WATCHED, {"pem": pem}, peer, tmp_path)
    written = json.loads(out)
    parts = {name for name in written if name.startswith(".agentcube-") and name.endswith(".part")}
    assert len(parts) == 2
    assert set(written) - parts == {"back"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["back", "local"]
    assert "session created" in log
    for secret in secrets_of(pem):
        assert secret not in log
