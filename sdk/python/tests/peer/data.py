"""The Router of the peer, and the agent in its sandboxes."""

from __future__ import annotations

import base64
import binascii
import os
import signal
import subprocess
import time
from typing import Any
from urllib.parse import parse_qs, unquote

from .tokens import Tokens
from .wire import DATA, Refused, RefusedInside, Session, expect, inside


class DataPlane(Tokens):
    # Router

    def invoke(self, path: str, query: str) -> None:
        namespace, kind, name, verb, rest = path.removeprefix(DATA).split("/", 4)
        expect(kind == "code-interpreters" and verb == "invocations", "path")
        session = self.state.sessions.get(self.headers.get("x-agentcube-session-id", ""))
        if session is None or (session.namespace, session.name) != (namespace, name):
            raise Refused(404, 'sessions "..." not found', "SESSION_NOT_FOUND")
        if session.fate is not None:
            raise Refused(410, "the session has ended", "SESSION_ENDED", fate=session.fate)
        session.paused = False  # a request wakes it
        self.claims = {}
        if session.key is None:
            self.check_bearer()
        else:
            self.check_token(session, "/" + unquote(rest), query)
        self.picod(session, unquote(rest), query)

    # PicoD

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

    def execute(self, session: Session) -> None:
        body = self.json_body()
        expect(set(body) <= {"command", "timeout", "working_dir", "env", "remove"}, "fields")
        command = body["command"]
        expect(bool(command) and all(isinstance(part, str) for part in command), "command")
        expect(body["timeout"].endswith("s"), "timeout")
        seconds = float(body["timeout"].removesuffix("s"))
        cwd = inside(session, body.get("working_dir", "."))
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **session.env, **body.get("env", {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            text = f'exec: "{command[0]}": executable file not found in $PATH'
            self.answer(
                200, {**result(1, b"", text.encode(), started), **self.remove_files(session, body)}
            )
            return
        try:
            out, err = process.communicate(timeout=seconds)
            code = process.returncode if process.returncode >= 0 else -1
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += f"Command timed out after {seconds:.0f} seconds".encode()
            code = 124
        self.answer(200, {**result(code, out, err, started), **self.remove_files(session, body)})

    def remove_files(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        if self.state.older_agent or not body.get("remove"):
            return {}
        for path in body["remove"]:
            inside(session, path).unlink(missing_ok=True)
        return {"removed": True}

    def write(self, session: Session) -> None:
        if self.is_form:
            path, mode, content, signature = self.multipart()
            self.check_form(session, path, mode, content, signature)
        else:
            body = self.json_body()
            expect(set(body) == {"path", "content", "mode"}, "fields")
            path, mode = body["path"], body["mode"]
            try:
                content = base64.b64decode(body["content"], validate=True)
            except binascii.Error as error:
                raise RefusedInside(400, "content is not base64", "INVALID_REQUEST") from error
        expect(mode == "0644", "mode")
        target = inside(session, path)
        if target.is_dir():
            raise RefusedInside(400, "path is a directory", "IS_DIRECTORY")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        self.answer(200, {"path": path, "size": len(content), "mode": "-rw-r--r--"})

    def multipart(self) -> tuple[str, str, bytes, str | None]:
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        pieces = self.seen.body.split(b"--" + boundary)
        expect(pieces[0] == b"" and pieces[-1] == b"--\r\n", "multipart frame")
        names = ["path", "mode", "file", "signature"]
        expect(3 <= len(pieces) - 2 <= 4, "number of parts")
        values = []
        for expected, piece in zip(names, pieces[1:-1], strict=False):
            head, _, value = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            expect(f'name="{expected}"'.encode() in head, f"part {expected}")
            expect(value.endswith(b"\r\n"), "end of part")
            values.append(value[:-2])
        path, mode, content, *signature = values
        return path.decode(), mode.decode(), content, signature[0].decode() if signature else None

    def list(self, session: Session, query: dict[str, list[str]]) -> None:
        expect(set(query) == {"path"}, "query")
        folder = inside(session, query["path"][0])
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
        target = inside(session, "/" + path)
        if target.is_dir():
            raise RefusedInside(400, "Path is a directory, not a file", "IS_DIRECTORY")
        if not target.is_file():
            raise RefusedInside(404, "File not found", "NOT_FOUND")
        self.answer(200, target.read_bytes())


def result(code: int, out: bytes, err: bytes, started: float) -> dict[str, Any]:
    return {
        "stdout": out.decode("utf-8", "replace"),
        "stderr": err.decode("utf-8", "replace"),
        "exit_code": code,
        "duration": time.monotonic() - started,
        "start_time": "2026-01-02T03:04:05.123456789Z",
        "end_time": "2026-01-02T03:04:05.223456789Z",
    }
