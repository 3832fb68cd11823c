"""The client against a running AgentCube."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from peer import new_private_key

from agentcube import (
    AgentCubeError,
    CodeInterpreterClient,
    CommandExecutionError,
    CommandTimeoutError,
    NotFoundError,
    SessionEndedError,
)

ODD_NAMES = [
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
    "index.html",
    "dir/with/sub folders/ü?#",
]


def test_commands(live: CodeInterpreterClient) -> None:
    assert live.execute_command("whoami").strip()
    assert live.execute_command("echo one two | wc -w").strip() == "2"
    assert live.execute_command(["printf", "%s", "$HOME && x"]) == "$HOME && x"
    assert live.execute_command("pwd; printf $A", env={"A": "b"}) == "/workspace\nb"
    with pytest.raises(CommandExecutionError) as caught:
        live.execute_command("echo out; echo err >&2; exit 3")
    assert (caught.value.exit_code, caught.value.stdout, caught.value.stderr) == (
        3,
        "out\n",
        "err\n",
    )


def test_a_program_that_is_not_there(live: CodeInterpreterClient) -> None:
    assert live.execute_command_result(["no-such-program"]).exit_code != 0


def test_time_outs(live: CodeInterpreterClient) -> None:
    with pytest.raises(CommandTimeoutError, match="timeout=") as caught:
        live.execute_command("echo partial; sleep 60 & sleep 60", timeout=1)
    assert caught.value.stdout == "partial\n"
    assert live.execute_command("echo alive") == "alive\n"


def test_output_that_is_not_utf8(live: CodeInterpreterClient) -> None:
    result = live.execute_command_result(["printf", "a\\377b"])
    assert result.stdout == "a\ufffdb"
    assert result.stdout_raw == b"a\xffb"


def test_code(live: CodeInterpreterClient) -> None:
    code = """
    import math
    print(f"Pi is approximately {math.pi:.4f}")
    """
    assert live.run_code("python", code) == "Pi is approximately 3.1416\n"
    assert live.run_code("bash", "[[ a == a ]] && echo {1..3}") == "1 2 3\n"
    with pytest.raises(CommandExecutionError, match="ZeroDivisionError"):
        live.run_code("python", "1 / 0")
    assert [entry.name for entry in live.list_files() if "script" in entry.name] == []


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(name: str, live: CodeInterpreterClient, tmp_path: Path) -> None:
    local, back = tmp_path / "local", tmp_path / "back"
    local.write_bytes(name.encode())
    live.upload_file(local, name)
    live.download_file(name, back)
    assert back.read_bytes() == name.encode()
    live.write_file("written", name)
    live.download_file("/workspace/" + name, back)
    assert back.read_text() == "written"
    assert live.execute_command(["cat", "--", name]) == "written"
    parent, _, last = name.rpartition("/")
    assert last in [entry.name for entry in live.list_files(parent or ".")]


@pytest.mark.parametrize("size", [0, 1, 20 * 1024 * 1024])
def test_sizes(size: int, live: CodeInterpreterClient, tmp_path: Path) -> None:
    local, back = tmp_path / "local", tmp_path / "back"
    content = os.urandom(size)
    local.write_bytes(content)
    live.upload_file(local, "f")
    live.download_file("f", back)
    assert back.read_bytes() == content
    live.write_file(content, "g")
    assert live.execute_command("cmp f g && stat -c %s g").strip() == str(size)


def test_what_is_not_there(live: CodeInterpreterClient, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        live.download_file("missing", tmp_path / "f")
    with pytest.raises(NotFoundError):
        live.list_files("missing")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_template() -> None:
    client = CodeInterpreterClient("no-such-template")
    with pytest.raises(NotFoundError) as caught:
        client.start()
    assert caught.value.code == "TEMPLATE_NOT_FOUND"
    assert caught.value.request_id


def test_only_the_key_opens_the_session(live: CodeInterpreterClient) -> None:
    for key in (None, new_private_key()):
        other = CodeInterpreterClient(
            session_id=live.session_id,
            private_key=key,
        )
        with pytest.raises(AgentCubeError) as caught:
            other.execute_command("true")
        assert caught.value.status in {401, 403}
        other.detach()


def test_another_client_with_the_exported_key(live: CodeInterpreterClient) -> None:
    live.write_file("kept", "note")
    with CodeInterpreterClient(
        session_id=live.session_id,
        private_key=live.export_key(),
    ) as other:
        assert other.execute_command("cat note") == "kept"
    assert live.execute_command("cat note") == "kept"


def test_an_ended_session() -> None:
    key = new_private_key()
    first = CodeInterpreterClient(private_key=key)
    first.start()
    second = CodeInterpreterClient(
        session_id=first.session_id,
        private_key=key,
    )
    first.stop()
    with pytest.raises(SessionEndedError) as caught:
        second.execute_command("true")
    assert caught.value.fate == "deleted"
    second.stop()


def test_threads(live: CodeInterpreterClient) -> None:
    outputs: list[str] = []

    def work(number: int) -> None:
        outputs.append(live.run_code("python", f"print({number})"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs, key=int) == [f"{number}\n" for number in range(8)]
