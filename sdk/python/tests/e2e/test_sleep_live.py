"""Pausing, forks and checkpoints of a running AgentCube."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack

import pytest

from agentcube import (
    AgentCubeError,
    CheckpointExistsError,
    CheckpointNotFoundError,
    CodeInterpreterClient,
    SessionPausedError,
)

# Counts in memory alone, and says so when asked: the count survives only with the process.
COUNTER = """
import pathlib, time
count, asked, answer = 0, pathlib.Path("ask"), pathlib.Path("answer")
while True:
    count += 1
    if asked.exists():
        asked.unlink()
        answer.write_text(str(count))
    time.sleep(0.01)
"""


def begin_counting(client: CodeInterpreterClient) -> None:
    client.write_file(COUNTER, "counter.py")
    client.execute_command("nohup python3 counter.py > log 2>&1 & echo $! > pid")


def count_of(client: CodeInterpreterClient) -> int:
    return int(
        client.execute_command(
            "rm -f answer; touch ask; until [ -s answer ]; do sleep 0.02; done; cat answer"
        )
    )


def test_a_process_goes_on_after_a_pause(live: CodeInterpreterClient) -> None:
    begin_counting(live)
    pid = live.execute_command("cat pid")
    last = count_of(live)
    for _ in range(5):
        live.pause()
        now = count_of(live)
        assert now > last
        last = now
    assert live.execute_command("cat pid; kill -0 $(cat pid)") == pid


def test_callers_of_a_sleeping_session_wait_for_one_waking(live: CodeInterpreterClient) -> None:
    live.write_file("x", "f")
    live.pause()
    outputs: list[str] = []
    threads = [
        threading.Thread(target=lambda: outputs.append(live.execute_command("cat f")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == ["x"] * 8


def test_a_command_that_is_cut_off_says_so(live: CodeInterpreterClient) -> None:
    live.start()
    caught: list[AgentCubeError] = []

    def run() -> None:
        try:
            live.execute_command("echo $$ > begun; sleep 600", timeout=900)
        except AgentCubeError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not any(entry.name == "begun" for entry in live.list_files()):
        time.sleep(0.05)
    live.pause()
    thread.join()
    assert [type(error) for error in caught] == [SessionPausedError]
    assert live.execute_command("echo awake") == "awake\n"


def test_forks_diverge(live: CodeInterpreterClient) -> None:
    begin_counting(live)
    before = count_of(live)
    with ExitStack() as stack:
        forks = [stack.enter_context(fork) for fork in live.fork(3)]
        for number, fork in enumerate(forks):
            assert count_of(fork) > before
            fork.write_file(str(number), "own")
        for number, fork in enumerate(forks):
            assert fork.execute_command("cat own") == str(number)
        seeds = [
            fork.run_code("python", "import random, uuid; print(random.random(), uuid.uuid4())")
            for fork in [live, *forks]
        ]
        assert len(set(seeds)) == 4
        # The key of one opens no other.
        with pytest.raises(AgentCubeError):
            CodeInterpreterClient(
                session_id=forks[0].session_id,
            ).list_files()
    assert "own" not in [entry.name for entry in live.list_files()]
    assert count_of(live) > before


def test_going_back_to_a_checkpoint(live: CodeInterpreterClient) -> None:
    name = f"live-{os.urandom(8).hex()}"
    begin_counting(live)
    before = count_of(live)
    kept = live.checkpoint(name)
    assert kept.name == name
    assert kept.size > 0
    try:
        with pytest.raises(CheckpointExistsError):
            live.checkpoint(name)
        live.execute_command("rm counter.py")
        with CodeInterpreterClient(checkpoint=name) as again:
            assert count_of(again) > before
            assert again.execute_command("ls counter.py") == "counter.py\n"
        assert name in [found.name for found in live.list_checkpoints()]
    finally:
        live.delete_checkpoint(name)
    with pytest.raises(CheckpointNotFoundError):
        live.delete_checkpoint(name)
