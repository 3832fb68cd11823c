"""Somebody on the way between client and server, who sees, keeps and changes requests."""

from __future__ import annotations

import dataclasses
import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from peer import Handler, Peer, Seen

from agentcube import APIConnectionError, CodeInterpreterClient

DATA = "/invocations/"
Use = Callable[[CodeInterpreterClient, Path], object]

USES: dict[str, Use] = {
    "execute_command": lambda client, _: client.execute_command("true"),
    "run_code": lambda client, _: client.run_code("sh", "true"),
    "write_file": lambda client, _: client.write_file("x", "a b/ü?#%&.txt"),
    "upload_file": lambda client, tmp: client.upload_file(tmp / "local", "a b/ü?#%&.bin"),
    "download_file": lambda client, tmp: client.download_file("in/ü?#%&~.txt", tmp / "back"),
    "list_files": lambda client, _: client.list_files("in"),
}


def send(peer: Peer, seen: Seen, **changes: Any) -> tuple[int, dict[str, Any]]:
    """Send a request that somebody else made, changed or not."""
    seen = dataclasses.replace(seen, **changes)
    headers = {k: v for k, v in seen.headers.items() if k not in {"host", "content-length"}}
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=60)
    try:
        connection.request(seen.method, seen.target, seen.body, headers)
        answer = connection.getresponse()
        raw = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(raw) if raw.startswith(b"{") else {}


def withheld(peer: Peer, client: CodeInterpreterClient, tmp_path: Path, name: str) -> Seen:
    """A request of the client that somebody on the way keeps for himself."""

    def keep(handler: Handler) -> None:
        handler.seen.body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        handler.drop()

    method = "GET" if name in {"download_file", "list_files"} else "POST"
    kept = peer.on(method, DATA, keep)
    with pytest.raises(APIConnectionError):
        USES[name](client, tmp_path)
    return kept[0]


def refused(answer: tuple[int, dict[str, Any]], why: str) -> bool:
    status, body = answer
    text: str = body.get("detail", "")
    return status == 401 and text.startswith("JWT verification failed: ") and why in text


def requests(peer: Peer) -> list[Seen]:
    return [seen for seen in peer.state.seen if DATA in seen.target]


def form_of(seen: Seen) -> list[bytes]:
    """The values of a form's fields."""
    boundary = seen.headers["content-type"].partition("boundary=")[2].encode()
    pieces = seen.body.split(b"\r\n--" + boundary)
    return [piece.partition(b"\r\n\r\n")[2] for piece in pieces[:-1]]


def unverified(token: str | bytes) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims
