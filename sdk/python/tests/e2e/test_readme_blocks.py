"""The code blocks of the README that the SDK has to fulfil run, unchanged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from peer import Peer

# The first block imports the client; the others go on from there.
PRELUDE = "from agentcube import CodeInterpreterClient\n"


def blocks_of(readme: str) -> list[str]:
    blocks = re.findall(r"^```python\n(.*?)^```\s*$", readme, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4, "the README has other blocks than these tests know"
    return blocks


def run(block: str, folder: Path, url: str | None = None) -> str:
    at = {} if url is None else {"WORKLOAD_MANAGER_URL": url, "ROUTER_URL": url}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + block],
        env={**os.environ, **at},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def check_quick_start(block: str, folder: Path, url: str | None = None) -> None:
    lines = run(block, folder, url).splitlines()
    assert lines[0] == "User: whoami"
    assert lines[1].strip()
    assert "Result: Pi is approximately 3.1416" in lines


def check_manual_lifecycle(block: str, folder: Path, url: str | None = None) -> None:
    assert "ttl=3600" in block
    run(block, folder, url)


def check_customizing(block: str, folder: Path, url: str | None = None) -> None:
    assert "custom-template" in block
    run(block, folder, url)


def test_blocks_on_the_peer(readme: str, peer: Peer, tmp_path: Path) -> None:
    quick_start, _, manual, customizing = blocks_of(readme)
    check_quick_start(quick_start, tmp_path, peer.url)
    check_manual_lifecycle(manual, tmp_path, peer.url)
    check_customizing(customizing, tmp_path, peer.url)
    assert len(peer.state.sessions) == 2
    assert peer.live == []


def test_quick_start(readme: str, tmp_path: Path) -> None:
    check_quick_start(blocks_of(readme)[0], tmp_path)


def test_file_operations(readme: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n1,2\n3,4\n5,9\n")
    run(blocks_of(readme)[1], tmp_path)
    summary = (tmp_path / "summary.csv").read_text().splitlines()
    assert summary[0] == ",a,b"
    assert summary[1] == "count,3.0,3.0"
    assert summary[2] == "mean,3.0,5.0"


def test_manual_lifecycle(readme: str, tmp_path: Path) -> None:
    check_manual_lifecycle(blocks_of(readme)[2], tmp_path)


def test_customizing(readme: str, tmp_path: Path) -> None:
    check_customizing(blocks_of(readme)[3], tmp_path)


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ("quickstart.py", "Pi is approximately 3.1416"),
        ("files.py", "mean,15.5,208.5"),
        ("manual_lifecycle.py", "Session started"),
        ("agent.py", "{'answer': 'You said: Do you remember?', 'heard': 2}"),
    ],
)
def test_examples(example: str, expected: str, tmp_path: Path) -> None:
    program = (Path(__file__).parents[2] / "examples" / example).read_text()
    assert expected in run(program, tmp_path).splitlines()
