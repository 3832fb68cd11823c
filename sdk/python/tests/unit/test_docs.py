"""The code in the README and in examples/ runs, and prints what it says."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from peer import Peer

ROOT = Path(__file__).parents[2]
ALL = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
# The peer does not encrypt, so that it keeps no record; `make test-e2e` runs that block too.
BLOCKS = [block for block in ALL if ".audit_record(" not in block]


@pytest.fixture(autouse=True)
def _settings(peer: Peer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKLOAD_MANAGER_URL", peer.url)
    monkeypatch.setenv("ROUTER_URL", peer.url)
    monkeypatch.chdir(tmp_path)


def test_there_are_blocks() -> None:
    assert (len(ALL), len(BLOCKS)) == (14, 13)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_blocks_of_the_readme(number: int, peer: Peer, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[number]],
        env=os.environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert peer.live == []
    made = "auth=" not in BLOCKS[number]  # there is no such provider
    made += BLOCKS[number].count(".fork(3)") * 3 + BLOCKS[number].count("(checkpoint=")
    assert len(peer.state.sessions) == made


def test_the_settings_of_the_readme_are_those_of_the_client() -> None:
    import inspect  # noqa: PLC0415

    from agentcube import CodeInterpreterClient  # noqa: PLC0415

    text = (ROOT / "README.md").read_text().partition("## Settings")[2]
    for name, parameter in inspect.signature(CodeInterpreterClient).parameters.items():
        (row,) = (
            line for line in text.splitlines() if line.startswith("| ") and f"`{name}`" in line
        )
        if parameter.default is not None:
            assert (
                f"{parameter.default:g}" in row
                if name.endswith("timeout")
                else (str(parameter.default) in row)
            )


def test_the_agents_arguments_of_the_readme_are_those_of_the_client() -> None:
    import inspect  # noqa: PLC0415

    from agentcube import AgentRuntimeClient, CodeInterpreterClient  # noqa: PLC0415

    text = (ROOT / "README.md").read_text()
    rows = text.partition("## Agents")[2].partition("## ")[0].splitlines()
    others = inspect.signature(CodeInterpreterClient).parameters
    for name, parameter in inspect.signature(AgentRuntimeClient).parameters.items():
        row = [line for line in rows if line.startswith(f"| `{name}`")]
        if not row:
            assert parameter.default == others[name].default, name
        elif parameter.default not in (None, parameter.empty):
            assert f"{parameter.default}" in row[0]


def test_the_agent(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples/agent.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [
        "{'answer': 'You said: Hello', 'heard': 1}",
        "{'answer': 'You said: Do you remember?', 'heard': 2}",
        "three",
        "little",
        "words",
    ]
    assert peer.live == []


def test_the_quick_start(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples/quickstart.py"), run_name="__main__")
    assert "Pi is approximately 3.1416\n" in capsys.readouterr().out
    assert peer.live == []


def test_the_manual_lifecycle(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples/manual_lifecycle.py"), run_name="__main__")
    assert capsys.readouterr().out == "Session started\nkept between calls\nSession stopped\n"
    assert peer.live == []
