"""The Workload Manager of the peer."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

from .copies import Copies, created
from .wire import Refused, Session, expect, inside, parse_key


class ControlPlane(Copies):
    def create(self, request_id: str) -> None:
        self.check_bearer()
        body = self.json_body(Refused)
        fields = {"name", "namespace", "ttl", "metadata", "publicKey", "checkpoint"}
        expect(set(body) <= fields | {"env", "files"}, "fields")
        expect(isinstance(body["ttl"], int) and body["ttl"] > 0, "ttl")
        expect(body["metadata"] == {}, "metadata")
        root = self.kept_root(body)
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
                made = self.begin(body["namespace"], body["name"], body["ttl"], key)
                if root is not None:
                    shutil.copytree(root, made.root, dirs_exist_ok=True)
                    made.env = dict(self.state.kept[body["checkpoint"]].env)
                self.give(made, body)
                session_id = self.state.by_idempotency_key[idempotency_key] = made.id
        answer = created(self.state.sessions[session_id])
        if not self.state.older_control:
            counts = {"variables": len(body.get("env", {})), "files": len(body.get("files", []))}
            answer |= {name: count for name, count in counts.items() if count}
        self.answer(200, answer, {"X-Request-Id": request_id})

    def give(self, session: Session, body: dict[str, Any]) -> None:
        if self.state.older_control:
            return
        session.env |= body.get("env", {})
        for number, file in enumerate(body.get("files", [])):
            expect(set(file) == {"path", "content"}, "fields of a file")
            target = inside(session, file["path"])
            if target.is_dir():
                del self.state.sessions[session.id]
                text = f"files[{number}].path is that of a folder"
                raise Refused(422, text, "FILE_NOT_WRITTEN")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(base64.b64decode(file["content"], validate=True))

    def kept_root(self, body: dict[str, Any]) -> Path | None:
        """The files to begin with, if a checkpoint is named; fills in its template."""
        if "checkpoint" not in body:
            return None
        kept = self.state.kept.get(body["checkpoint"])
        if kept is None:
            raise Refused(404, "no such checkpoint", "CHECKPOINT_NOT_FOUND")
        named = (
            body.setdefault("namespace", kept.namespace),
            body.setdefault("name", kept.template),
        )
        if named != (kept.namespace, kept.template):
            raise Refused(400, "the checkpoint is of another template", "INVALID_REQUEST")
        if kept.bound and "publicKey" not in body:
            raise Refused(400, "the checkpoint needs a publicKey", "INVALID_REQUEST")
        return kept.root

    def delete(self, session_id: str) -> None:
        self.check_bearer()
        with self.state.lock:
            session = self.state.sessions.get(session_id)
            if session is None or session.fate is not None:
                raise Refused(404, "no such session", "SESSION_NOT_FOUND")
            session.fate = "deleted"
        self.answer(200, {"message": "Sandbox deleted successfully"})
