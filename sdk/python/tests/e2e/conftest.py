from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentcube import CodeInterpreterClient


def required(variable: str, meaning: str) -> str:
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"{variable} is not set; it has to be {meaning}", pytrace=False)
    return value


@pytest.fixture
def server_url() -> str:
    return required("AGENTCUBE_E2E_URL", "the URL of a running AgentCube")


@pytest.fixture
def readme() -> str:
    return Path(required("AGENTCUBE_SDK_README", "the README the SDK has to fulfil")).read_text()


@pytest.fixture
def live(server_url: str) -> Iterator[CodeInterpreterClient]:
    with CodeInterpreterClient(workload_manager_url=server_url, router_url=server_url) as client:
        yield client
