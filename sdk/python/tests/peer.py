"""A server that holds the SDK to the wire contract, seen from the other side.

It refuses what the contract does not allow, checks every signature with the key that the
client posted, keeps files in a folder of its own and really runs the commands, as
ordinary processes of this machine: it is for tests of the client, not a sandbox.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

if TYPE_CHECKING:
    from typing_extensions import Self

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


Interceptor = Callable[["Handler"], bool]


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
    by_idempotency_key: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    interceptors: list[Interceptor] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    connections: int = 0


class Handler(BaseHTTPRequestHandler):
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
        prefix = self.state.prefix
        parts = urlsplit(self.path)
        if not parts.path.startswith(prefix):
            raise Refused(404, "no such path", "NOT_FOUND")
        path = parts.path.removeprefix(prefix)
        if self.command == "POST" and path == CREATE:
            self.create(request_id)
        elif self.command == "DELETE" and path.startswith(SESSIONS):
            self.delete(unquote(path.removeprefix(SESSIONS)))
        elif self.command in {"GET", "POST"} and path.startswith(DATA):
            self.invoke(path, parts.query)
        else:
            raise Refused(404, "no such path", "NOT_FOUND")

    # Workload Manager

    def check_bearer(self) -> None:
        if self.state.token is None:
            return
        if self.headers.get("Authorization") != f"Bearer {self.state.token}":
            raise Refused(401, "invalid or missing token", "UNAUTHORIZED")

    def create(self, request_id: str) -> None:
        self.check_bearer()
        body = self.json_body(Refused)
        expect(set(body) <= {"name", "namespace", "ttl", "metadata", "publicKey"}, "fields")
        expect(isinstance(body["ttl"], int) and body["ttl"] > 0, "ttl")
        expect(body["metadata"] == {}, "metadata")
        if (body["namespace"], body["name"]) not in self.state.templates:
            raise Refused(
                404,
                f'codeinterpreters "{body["namespace"]}/{body["name"]}" not found',
                "TEMPLATE_NOT_FOUND",
                hint="did you mean simple-codeinterpreter?",
            )
        key = parse_key(body["publicKey"]) if "publicKey" in body else None
        idempotency_key = self.headers["Idempotency-Key"]
        expect(bool(idempotency_key), "Idempotency-Key")
        with self.state.lock:
            session_id = self.state.by_idempotency_key.get(idempotency_key)
            if session_id is None:
                session_id = str(uuid.uuid4())
                root = self.state.folder / session_id
                root.mkdir()
                self.state.sessions[session_id] = Session(
                    session_id, body["namespace"], body["name"], body["ttl"], root, key
                )
                self.state.by_idempotency_key[idempotency_key] = session_id
        self.answer(
            200,
            {"kind": "Sandbox", "sessionId": session_id, "entryPoints": []},
            {"X-Request-Id": request_id},
        )

    def delete(self, session_id: str) -> None:
        self.check_bearer()
        with self.state.lock:
            session = self.state.sessions.get(session_id)
            if session is None or session.fate is not None:
                raise Refused(404, "no such session", "SESSION_NOT_FOUND")
            session.fate = "deleted"
        self.answer(200, {"message": "Sandbox deleted successfully"})

    # Router

    def invoke(self, path: str, query: str) -> None:
        namespace, kind, name, verb, rest = path.removeprefix(DATA).split("/", 4)
        expect(kind == "code-interpreters" and verb == "invocations", "path")
        session = self.state.sessions.get(self.headers.get("x-agentcube-session-id", ""))
        if session is None or (session.namespace, session.name) != (namespace, name):
            raise Refused(404, 'sessions "..." not found', "SESSION_NOT_FOUND")
        if session.fate is not None:
            raise Refused(410, "the session has ended", "SESSION_ENDED", fate=session.fate)
        if session.key is None:
            self.check_bearer()
        else:
            self.check_signature(session.key)
        self.picod(session, unquote(rest), query)

    # PicoD

    def check_signature(self, key: RSAPublicKey) -> None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token or " " in token:
            raise RefusedInside(401, "Missing Authorization header", "TOKEN_MISSING")
        try:
            head = jwt.get_unverified_header(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                options={"require": ["exp", "iat", "iss"]},
                issuer="sdk-client",
            )
        except jwt.PyJWTError as error:
            raise RefusedInside(
                401, "Invalid token", "TOKEN_INVALID", detail=f"JWT verification failed: {error}"
            ) from error
        expect(head == {"alg": "RS256", "typ": "JWT"}, "JWT header")
        expect(claims["exp"] == claims["iat"] + 300, "exp")
        if self.headers.get("Content-Type") == "application/json":
            expect(set(claims) == {"iss", "iat", "exp", "body_sha256"}, "claims")
            digest = hashlib.sha256(self.seen.body).hexdigest()
            if claims["body_sha256"] != digest:
                raise RefusedInside(401, "body does not match its signature", "BODY_MISMATCH")
        else:
            expect(set(claims) == {"iss", "iat", "exp"}, "claims without a JSON body")

    def picod(self, session: Session, rest: str, query: str) -> None:
        match self.command, rest:
            case "POST", "api/execute":
                self.execute(session)
            case "POST", "api/files":
                self.write(session)
            case "GET", "api/files":
                self.list(session, parse_qs(query, keep_blank_values=True, strict_parsing=True))
            case "GET", _ if rest.startswith("api/files/"):
                self.download(session, rest.removeprefix("api/files/"))
            case _:
                raise RefusedInside(404, "no such route", "NOT_FOUND")

    def json_body(self, refused: type[Refused] = RefusedInside) -> dict[str, Any]:
        expect(self.headers.get("Content-Type") == "application/json", "Content-Type")
        try:
            body = json.loads(self.seen.body)
        except ValueError as error:
            raise refused(400, "invalid JSON", "INVALID_REQUEST") from error
        expect(isinstance(body, dict), "body")
        result: dict[str, Any] = body
        return result

    def execute(self, session: Session) -> None:
        body = self.json_body()
        expect(set(body) <= {"command", "timeout", "working_dir", "env"}, "fields")
        command = body["command"]
        expect(bool(command) and all(isinstance(part, str) for part in command), "command")
        expect(body["timeout"].endswith("s"), "timeout")
        seconds = float(body["timeout"].removesuffix("s"))
        cwd = self.inside(session, body.get("working_dir", "."))
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **body.get("env", {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            text = f'exec: "{command[0]}": executable file not found in $PATH'
            self.answer(200, result(1, b"", text.encode(), started))
            return
        try:
            out, err = process.communicate(timeout=seconds)
            code = process.returncode if process.returncode >= 0 else -1
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += f"Command timed out after {seconds:.0f} seconds".encode()
            code = 124
        self.answer(200, result(code, out, err, started))

    def write(self, session: Session) -> None:
        if (self.headers.get("Content-Type") or "").startswith("multipart/form-data"):
            path, mode, content = self.multipart()
        else:
            body = self.json_body()
            expect(set(body) == {"path", "content", "mode"}, "fields")
            path, mode = body["path"], body["mode"]
            try:
                content = base64.b64decode(body["content"], validate=True)
            except binascii.Error as error:
                raise RefusedInside(400, "content is not base64", "INVALID_REQUEST") from error
        expect(mode == "0644", "mode")
        target = self.inside(session, path)
        if target.is_dir():
            raise RefusedInside(400, "path is a directory", "IS_DIRECTORY")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        self.answer(200, {"path": path, "size": len(content), "mode": "-rw-r--r--"})

    def multipart(self) -> tuple[str, str, bytes]:
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        pieces = self.seen.body.split(b"--" + boundary)
        expect(pieces[0] == b"" and pieces[-1] == b"--\r\n", "multipart frame")
        values = []
        for expected, piece in zip(("path", "mode", "file"), pieces[1:-1], strict=True):
            head, _, value = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            expect(f'name="{expected}"'.encode() in head, f"part {expected}")
            expect(value.endswith(b"\r\n"), "end of part")
            values.append(value[:-2])
        return values[0].decode(), values[1].decode(), values[2]

    def list(self, session: Session, query: dict[str, list[str]]) -> None:
        expect(set(query) == {"path"}, "query")
        folder = self.inside(session, query["path"][0])
        if not folder.is_dir():
            raise RefusedInside(404, "Directory not found", "NOT_FOUND")
        entries = []
        for entry in sorted(folder.iterdir(), key=lambda item: item.name):
            info = entry.lstat()
            entries.append(
                {
                    "name": entry.name,
                    "size": info.st_size,
                    "modified": "2026-01-02T03:04:05.123456789Z",
                    "mode": "-rw-r--r--",
                    "is_dir": entry.is_dir() and not entry.is_symlink(),
                }
            )
        self.answer(200, {"files": entries})

    def download(self, session: Session, path: str) -> None:
        # As the server does it: absolute if it begins with the workspace, else relative.
        target = self.inside(session, "/" + path)
        if target.is_dir():
            raise RefusedInside(400, "Path is a directory, not a file", "IS_DIRECTORY")
        if not target.is_file():
            raise RefusedInside(404, "File not found", "NOT_FOUND")
        self.answer(200, target.read_bytes())

    @staticmethod
    def inside(session: Session, path: str) -> Path:
        relative = path
        if path == WORKSPACE or path.startswith(WORKSPACE + "/"):
            relative = path[len(WORKSPACE) :]
        target = Path(os.path.normpath(session.root / relative.lstrip("/")))
        if not target.is_relative_to(session.root):
            raise RefusedInside(400, "path escapes workspace jail", "PATH_ESCAPE")
        return target


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that hang up, and tests that hang up on them, are what is tested here.
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handle_error(request, client_address)


class Peer:
    """A running server. Use it in a ``with`` block."""

    def __init__(self, *, token: str | None = None, prefix: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agentcube-peer-")
        self.state = State(Path(self._folder.name), token=token, prefix=prefix)
        handler = type("BoundHandler", (Handler,), {"state": self.state})
        self._server = Server(("127.0.0.1", 0), handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    def wrap(self, context: ssl.SSLContext) -> None:
        """Speak TLS; to be called before the start."""
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.state.prefix}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.cleanup()

    @property
    def live(self) -> list[Session]:
        return [s for s in self.state.sessions.values() if s.fate is None]

    @property
    def only(self) -> Session:
        (session,) = self.state.sessions.values()
        return session

    def requests(self, method: str, part: str = "") -> list[Seen]:
        return [s for s in self.state.seen if s.method == method and part in s.target]

    def intercept(self, interceptor: Interceptor) -> None:
        self.state.interceptors.append(interceptor)

    def on(
        self, method: str, part: str, act: Callable[[Handler], object], times: int = 1
    ) -> list[Seen]:
        """Let ``act`` serve the next ``times`` requests of that kind; returns those it served."""
        served: list[Seen] = []

        def interceptor(handler: Handler) -> bool:
            if handler.command != method or part not in handler.path:
                return False
            with self.state.lock:
                if len(served) >= times:
                    return False
                served.append(handler.seen)
            act(handler)
            return True

        self.intercept(interceptor)
        return served

    def answer(
        self,
        method: str,
        part: str,
        status: int,
        body: Any,
        headers: dict[str, str] | None = None,
        times: int = 1,
    ) -> list[Seen]:
        """Answer the next requests of that kind with this, having read their bodies."""

        def act(handler: Handler) -> None:
            handler.seen.body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
            handler.answer(status, body, headers)

        return self.on(method, part, act, times)


def stalled(release: threading.Event) -> Callable[[Handler], None]:
    """Serves a request by not answering it until released."""

    def act(handler: Handler) -> None:
        release.wait(60)
        handler.drop()

    return act


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise Refused(400, f"against the contract: {what}", "AGAINST_CONTRACT")


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


def result(code: int, out: bytes, err: bytes, started: float) -> dict[str, Any]:
    return {
        "stdout": out.decode("utf-8", "replace"),
        "stderr": err.decode("utf-8", "replace"),
        "exit_code": code,
        "duration": time.monotonic() - started,
        "start_time": "2026-01-02T03:04:05.123456789Z",
        "end_time": "2026-01-02T03:04:05.223456789Z",
    }
