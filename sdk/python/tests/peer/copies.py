"""Pausing, forks and checkpoints in the peer."""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from typing import Any
from urllib.parse import unquote

import jwt

from .wire import Kept, Refused, Session, Wire, expect, parse_key

ONE = "/v1/sessions/"
KEPT = "/v1/checkpoints"


class Copies(Wire):
    def copies(self, path: str) -> bool:
        """Serve the request, if it is of these."""
        match self.command, path.removeprefix(ONE).split("/"):
            case "POST", [session_id, verb] if path.startswith(ONE):
                self.change(self.owned(session_id), path, verb)
            case "GET", [session_id] if path.startswith(ONE) and not self.state.older_control:
                self.describe(unquote(session_id))
            case "GET", _ if path == KEPT:
                self.check_bearer()
                self.answer(200, {"checkpoints": [k.shown for k in self.state.kept.values()]})
            case "DELETE", _ if path.startswith(KEPT + "/"):
                self.check_bearer()
                self.answer(200, self.remove(unquote(path.removeprefix(KEPT + "/"))))
            case _:
                return False
        return True

    def describe(self, session_id: str) -> None:
        self.check_bearer()
        session = self.state.sessions.get(session_id)
        if session is None:
            raise Refused(404, "no such session", "SESSION_NOT_FOUND")
        state = "paused" if session.paused else "running" if session.fate is None else "ended"
        self.answer(
            200,
            {
                "sessionId": session.id,
                "kind": "CodeInterpreter",
                "namespace": session.namespace,
                "name": session.name,
                "auth": "managed" if session.key is None else "client-key",
                "state": state,
            },
        )

    def owned(self, session_id: str) -> Session:
        self.check_bearer()
        session = self.state.sessions.get(session_id)
        if session is None:
            raise Refused(404, "no such session", "SESSION_NOT_FOUND")
        if session.fate is not None:
            raise Refused(410, "the session has ended", "SESSION_ENDED", fate=session.fate)
        return session

    def change(self, session: Session, path: str, verb: str) -> None:
        if verb in {"pause", "resume"}:
            expect(self.seen.body == b"", "body")
            session.paused = verb == "pause"
            self.answer(200, {"sessionId": session.id, "state": verb + "d"})
            return
        body = self.json_body(Refused)
        self.check_agreement(session, path)
        if verb == "fork":
            self.answer(200, {"sessions": self.fork(session, body)})
        elif verb == "checkpoints":
            self.answer(200, self.keep(session, body))
        else:
            raise Refused(404, "no such path", "NOT_FOUND")

    def check_agreement(self, session: Session, path: str) -> None:
        signature = self.headers.get("X-Agentcube-Session-Signature")
        if session.key is None:
            expect(signature is None, "signature without a key")
            return
        try:
            claims = jwt.decode(
                signature or "", session.key, algorithms=["RS256"], options={"require": ["exp"]}
            )
        except jwt.PyJWTError as error:
            raise Refused(403, f"the key's holder does not agree: {error}", "FORBIDDEN") from error
        wanted = {
            "sid": session.id,
            "htm": self.command,
            "htu": path,
            "body_sha256": hashlib.sha256(self.seen.body).hexdigest(),
            "exp": claims["iat"] + 300,
        }
        expect({**claims, **wanted} == claims and set(claims) == {*wanted, "iat", "jti"}, "claims")
        with self.state.lock:
            expect(claims["jti"] not in self.state.agreements, "jti is used once")
            self.state.agreements.add(claims["jti"])

    def fork(self, parent: Session, body: dict[str, Any]) -> list[dict[str, Any]]:
        expect(set(body) <= {"count", "ttl", "publicKeys"}, "fields")
        expect(1 <= body["count"] <= 64 and body["ttl"] > 0, "count and ttl")
        texts: list[str | None] = body.get("publicKeys", [])
        expect(len(texts) == (0 if parent.key is None else body["count"]), "publicKeys")
        sessions = [
            self.begin(parent.namespace, parent.name, body["ttl"], text and parse_key(text))
            for text in texts or [None] * body["count"]
        ]
        for session in sessions:
            shutil.copytree(parent.root, session.root, dirs_exist_ok=True)
            session.parent, session.env = parent.id, dict(parent.env)
        return [created(session) for session in sessions]

    def keep(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        expect(set(body) == {"name"}, "fields")
        name = body["name"]
        expect(bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name)), "name")
        if name in self.state.kept:
            raise Refused(409, "the name is taken", "CHECKPOINT_EXISTS")
        root = self.state.folder / f"kept-{uuid.uuid4()}"
        shutil.copytree(session.root, root)
        kept = Kept(
            name=name,
            session=session.id,
            namespace=session.namespace,
            template=session.name,
            root=root,
            bound=session.key is not None,
            env=dict(session.env),
        )
        self.state.kept[name] = kept
        return kept.shown

    def remove(self, name: str) -> dict[str, Any]:
        kept = self.state.kept.pop(name, None)
        if kept is None:
            raise Refused(404, "no such checkpoint", "CHECKPOINT_NOT_FOUND")
        return kept.shown

    def begin(self, namespace: str, name: str, ttl: int, key: Any) -> Session:
        session_id = str(uuid.uuid4())
        root = self.state.folder / session_id
        root.mkdir()
        session = Session(session_id, namespace, name, ttl, root, key, strict=self.state.strict)
        self.state.sessions[session_id] = session
        return session


def created(session: Session) -> dict[str, Any]:
    described = {"sessionId": session.id, "namespace": session.namespace, "name": session.name}
    return {
        "kind": "Sandbox",
        "sessionId": session.id,
        "entryPoints": [],
        "session": {**described, "parent": session.parent},
    }
