from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentcube import AgentRuntimeClient, CodeInterpreterClient, NotSupportedError


def required(variable: str, meaning: str) -> str:
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"{variable} is not set; it has to be {meaning}", pytrace=False)
    return value


@pytest.fixture(autouse=True)
def router_url() -> str:
    """Where sessions are reached; the clients of these tests find it by themselves."""
    required("WORKLOAD_MANAGER_URL", "the URL of a running AgentCube")
    return required("ROUTER_URL", "the URL of its Router")


@pytest.fixture
def readme() -> str:
    return Path(required("AGENTCUBE_SDK_README", "the README the SDK has to fulfil")).read_text()


@pytest.fixture
def live() -> Iterator[CodeInterpreterClient]:
    with CodeInterpreterClient() as client:
        yield client


@pytest.fixture
def pause() -> Callable[[CodeInterpreterClient | AgentRuntimeClient], None]:
    """Put a session to sleep, or, on a cluster, look at how that is refused."""
    sleeps = os.environ.get("AGENTCUBE_E2E_SLEEPS", "yes") == "yes"

    def pause(client: CodeInterpreterClient | AgentRuntimeClient) -> None:
        if sleeps:
            client.pause()
            return
        with pytest.raises(NotSupportedError) as refused:
            client.pause()
        assert refused.value.code == "NOT_SUPPORTED"

    return pause
