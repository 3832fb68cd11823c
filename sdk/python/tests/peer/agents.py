"""The Router of the peer for agents, and an agent that remembers what it was asked."""

from __future__ import annotations

import json
from typing import Any

from .copies import Copies
from .wire import DATA, Refused, expect

SESSION = "x-agentcube-session-id"


class Agents(Copies):
    def invoke_agent(self, path: str, query: str) -> None:
        namespace, _, name, verb, rest = path.removeprefix(DATA).split("/", 4)
        expect(verb == "invocations", "path")
        self.check_bearer()
        session_id = self.headers.get(SESSION)
        if session_id is None:
            if (namespace, name) not in self.state.agents:
                text = f'agentruntimes.agentcube.volcano.sh "{namespace}/{name}" not found'
                raise Refused(404, text, "TEMPLATE_NOT_FOUND")
            with self.state.lock:
                session_id = self.begin(namespace, name, 3600, None).id
        session = self.state.sessions.get(session_id)
        if session is None or (session.namespace, session.name) != (namespace, name):
            raise Refused(404, f'sessions "{session_id}" not found', "SESSION_NOT_FOUND")
        if session.fate is not None:
            raise Refused(410, "the session has ended", "SESSION_ENDED", fate=session.fate)
        session.paused = False
        self.named = {SESSION: session_id}
        self.act(self.state.heard.setdefault(session_id, []), rest, query)

    def act(self, heard: list[Any], path: str, query: str) -> None:
        """The agent: what examples/agent.yaml has, and what tests want to see."""
        match self.command, path:
            case "POST", "":
                heard.append(json.loads(self.seen.body))
                said = heard[-1].get("prompt")
                self.answer(200, {"answer": f"You said: {said}", "heard": len(heard)}, self.named)
            case "POST", "chat":
                words = json.loads(self.seen.body)["prompt"].split()
                self.stream(*(f"data: {word}\n\n".encode() for word in words))
            case _, "mirror":
                seen = {"method": self.command, "query": query, "headers": self.seen.headers}
                body = self.seen.body.decode("latin-1")
                self.answer(200, {**seen, "body": body}, self.named)
            case "GET", "text":
                self.answer(200, "just words ü".encode(), self.named)
            case "GET", "empty":
                self.answer(204, b"", self.named)
            case "GET", "teapot":
                self.answer(418, b"short and stout", self.named)
            case "GET", "gone":
                self.answer(410, {"error": "this page is gone"}, self.named)
            case _:
                self.answer(404, {"error": "the agent knows no such page"}, self.named)

    def stream(self, *pieces: bytes) -> None:
        """Send pieces, each when the one before has been taken from ``state.taken``."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in self.named.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.state.before_next_piece()
        self.wfile.write(b"0\r\n\r\n")
