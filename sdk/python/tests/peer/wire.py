"""What the peer and its clients say to each other: state, refusals, answers."""

from __future__ import annotations

import base64
import json
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

WORKSPACE = "/workspace"
DATA = "/v1/namespaces/"
CREATE = "/v1/code-interpreter"
SESSIONS = "/v1/code-interpreter/sessions/"


class Refused(Exception):  # noqa: N818
    def __init__(self, status: int, text: str, code: str, **more: Any) -> None:
        super().__init__(text)
        self.status = status
        self.body = {"error": text, "message": text, "code": code, **more}


class RefusedInside(Refused):
    """A refusal in the shape of the agent in the sandbox."""

    def __init__(self, status: int, text: str, reason: str, **more: Any) -> None:
        super().__init__(status, text, reason)
        self.body = {"error": text, "code": status, "reason": reason, **more}


@dataclass
class Session:
    id: str
    namespace: str
    name: str
    ttl: int
    root: Path
    key: RSAPublicKey | None
    fate: str | None = None
    paused: bool = False
    strict: bool = False
    """It takes bound tokens alone."""
    used: set[str] = field(default_factory=set)
    """Every jti that came with a token."""
    parent: str | None = None
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Kept:
    """A checkpoint; its memory is only its files."""

    name: str
    session: str
    namespace: str
    template: str
    root: Path
    bound: bool
    env: dict[str, str]

    @property
    def shown(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "sessionId": self.session,
            "namespace": self.namespace,
            "templateName": self.template,
            "auth": "client-key" if self.bound else "managed",
            "createdAt": "2026-01-02T03:04:05.123456789Z",
            "expiresAt": "2026-01-09T03:04:05Z",
            "sizeBytes": 12345,
        }


@dataclass
class Seen:
    """One request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def bearer(self) -> str:
        return self.headers["authorization"].removeprefix("Bearer ")

    @property
    def claims(self) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(self.bearer, options={"verify_signature": False})
        return claims


Interceptor = Callable[[Any], bool]


@dataclass
class State:
    folder: Path
    token: str | None = None
    prefix: str = ""
    templates: set[tuple[str, str]] = field(
        default_factory=lambda: {
            ("default", "simple-codeinterpreter"),
            ("agentcube", "custom-template"),
        }
    )
    sessions: dict[str, Session] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    agreements: set[str] = field(default_factory=set)
    by_idempotency_key: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    interceptors: list[Interceptor] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    connections: int = 0
    strict: bool = False
    """New sessions are strict."""
    agents: set[tuple[str, str]] = field(default_factory=lambda: {("default", "my-agent")})
    heard: dict[str, list[Any]] = field(default_factory=dict)
    """What the agents were asked, by session."""
    before_next_piece: Callable[[], object] = lambda: None
    """Called by an agent after each piece of a stream."""
    older_agent: bool = False
    """It knows nothing of files to be removed, and ignores them."""
    older_control: bool = False
    """It knows nothing of env and files, and ignores them."""


class Wire(BaseHTTPRequestHandler):
    """Reads requests and writes answers; what is in between is for those who inherit."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    state: ClassVar[State]

    def setup(self) -> None:
        super().setup()
        with self.state.lock:
            self.state.connections += 1

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def do_PUT(self) -> None:
        self.serve()

    def do_DELETE(self) -> None:
        self.serve()

    def serve(self) -> None:
        self.seen = Seen(
            self.command, self.path, {name.lower(): value for name, value in self.headers.items()}
        )
        with self.state.lock:
            self.state.seen.append(self.seen)
            interceptors = list(self.state.interceptors)
        for interceptor in interceptors:
            if interceptor(self):
                return
        self.seen.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request_id = uuid.uuid4().hex
        try:
            self.route(request_id)
        except Refused as refused:
            self.answer(
                refused.status,
                {**refused.body, "requestId": request_id},
                {"X-Request-Id": request_id},
            )

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def drop(self) -> None:
        """Hang up without an answer."""
        self.close_connection = True

    def route(self, request_id: str) -> None:
        raise NotImplementedError

    def check_bearer(self) -> None:
        if self.state.token is None:
            return
        if self.headers.get("Authorization") != f"Bearer {self.state.token}":
            raise Refused(401, "invalid or missing token", "UNAUTHORIZED")

    def json_body(self, refused: type[Refused] = RefusedInside) -> dict[str, Any]:
        expect(self.headers.get("Content-Type") == "application/json", "Content-Type")
        try:
            body = json.loads(self.seen.body)
        except ValueError as error:
            raise refused(400, "invalid JSON", "INVALID_REQUEST") from error
        expect(isinstance(body, dict), "body")
        result: dict[str, Any] = body
        return result


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise Refused(400, f"against the contract: {what}", "AGAINST_CONTRACT")


def inside(session: Session, path: str) -> Path:
    """Where a path of the sandbox is on this machine."""
    relative = path
    if path == WORKSPACE or path.startswith(WORKSPACE + "/"):
        relative = path[len(WORKSPACE) :]
    target = Path(os.path.normpath(session.root / relative.lstrip("/")))
    if not target.is_relative_to(session.root):
        raise RefusedInside(400, "path escapes workspace jail", "PATH_ESCAPE")
    return target


def new_private_key() -> bytes:
    """The PEM text of a new session key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def parse_key(text: str) -> RSAPublicKey:
    expect("=" not in text, "padding of publicKey")
    pem = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    expect(pem.startswith(b"-----BEGIN PUBLIC KEY-----\n") and pem.endswith(b"-----\n"), "PEM")
    key = load_pem_public_key(pem)
    expect(isinstance(key, RSAPublicKey), "RSA key")
    assert isinstance(key, RSAPublicKey)
    expect(key.key_size == 2048 and key.public_numbers().e == 65537, "RSA-2048")
    return key
