from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peer import Peer

import agentcube

VARIABLES = (
    "WORKLOAD_MANAGER_URL",
    "WORKLOADMANAGER_URL",
    "ROUTER_URL",
    "API_TOKEN",
    "AGENTCUBE_TOKEN",
    "AGENTCUBE_TOKEN_FILE",
    "XDG_CONFIG_HOME",
    "KUBERNETES_SERVICE_HOST",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)

MakeClient = Callable[..., agentcube.CodeInterpreterClient]


@pytest.fixture
def clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No setting of the machine that runs the tests reaches them."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def peer(clean_environment: None) -> Iterator[Peer]:
    with Peer() as running:
        yield running


@pytest.fixture
def make_client(peer: Peer) -> Iterator[MakeClient]:
    """Makes clients of the peer, and stops them all in the end."""
    made: list[agentcube.CodeInterpreterClient] = []

    def make(**options: Any) -> agentcube.CodeInterpreterClient:
        options = {"workload_manager_url": peer.url, "router_url": peer.url, **options}
        client = agentcube.CodeInterpreterClient(**options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.detach()


@pytest.fixture
def client(make_client: MakeClient) -> agentcube.CodeInterpreterClient:
    return make_client()


@pytest.fixture
def strict(peer: Peer, make_client: MakeClient, tmp_path: Path) -> agentcube.CodeInterpreterClient:
    """A client of a session that takes bound tokens alone, ready for what ``between`` tries."""
    (tmp_path / "local").write_bytes(b"content")
    peer.state.strict = True
    client = make_client()
    client.write_file("", "in/ü?#%&~.txt")
    return client


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which are not waited for."""
    slept: list[float] = []
    monkeypatch.setattr("agentcube._session.time.sleep", slept.append)
    return slept
