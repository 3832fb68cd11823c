"""What somebody on the way could try with requests that are signed for themselves alone."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from between import USES, form_of, refused, requests, send, unverified, withheld
from conftest import MakeClient
from peer import Peer, new_private_key

from agentcube import AuthenticationError, CodeInterpreterClient
from agentcube._auth import SessionKey


@pytest.mark.parametrize("name", USES)
def test_a_request_that_was_seen_cannot_be_sent_again(
    name: str, peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    USES[name](strict, tmp_path)
    for seen in requests(peer):
        assert refused(send(peer, seen), "used before")


@pytest.mark.parametrize("name", USES)
def test_a_request_that_was_withheld_is_good_once(
    name: str, peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    """The others here are refused for what was changed, and for nothing else."""
    seen = withheld(peer, strict, tmp_path, name)
    assert send(peer, seen)[0] == 200
    assert refused(send(peer, seen), "used before")


@pytest.mark.parametrize("name", USES)
def test_a_request_is_good_for_no_other(
    name: str, peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    seen = withheld(peer, strict, tmp_path, name)
    base, _, inside = seen.target.partition("/invocations")
    base += "/invocations"
    path, _, query = inside.partition("?")
    for other in (
        f"{path}?path=/etc" if query else f"{path}?path=.",
        "/api/files/in/secret",
        f"{path}/",
        f"/{inside}",
        f"/api/x/..{inside.removeprefix('/api')}",
    ):
        assert refused(send(peer, seen, target=base + other), "another path"), other
    method = "GET" if seen.method == "POST" else "POST"
    assert refused(send(peer, seen, method=method), "another method")
    assert send(peer, seen)[0] == 200


@pytest.mark.parametrize("name", USES)
def test_a_request_is_good_for_no_other_session(
    name: str, peer: Peer, make_client: MakeClient, tmp_path: Path
) -> None:
    """Even where both have the same key."""
    (tmp_path / "local").touch()
    pem = new_private_key()
    one, two = make_client(private_key=pem), make_client(private_key=pem)
    for client in (one, two):
        client.write_file("", "in/ü?#%&~.txt")
    seen = withheld(peer, one, tmp_path, name)
    headers = {**seen.headers, "x-agentcube-session-id": two.session_id}
    assert refused(send(peer, seen, headers=headers), "another session")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
@pytest.mark.parametrize("name", ["execute_command", "write_file"])
def test_a_request_is_good_for_no_other_body(
    kind: str, name: str, peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    seen = withheld(peer, strict, tmp_path, name)
    headers = {**seen.headers, "content-type": kind}
    answer = send(peer, seen, body=b'{"command": ["id"], "timeout": "1s"}', headers=headers)
    assert refused(answer, "body_sha256 does not match")


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_the_token_of_a_form_allows_no_other_body(
    kind: str, peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    seen = withheld(peer, strict, tmp_path, "upload_file")
    body = b'{"path": "f", "content": "", "mode": "0644"}'
    answer = send(peer, seen, body=body, headers={**seen.headers, "content-type": kind})
    assert refused(answer, "body_sha256 is missing")
    assert not (peer.only.root / "f").exists()


@pytest.mark.parametrize(
    ("field", "why"),
    [(0, "another path or mode"), (1, "another path or mode"), (2, "does not match the file")],
)
def test_a_form_is_good_for_no_other_content(
    field: int, why: str, peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    seen = withheld(peer, strict, tmp_path, "upload_file")
    value = form_of(seen)[field]
    body = seen.body.replace(b"\r\n\r\n" + value + b"\r\n", b"\r\n\r\n0755\r\n", 1)
    assert body != seen.body
    assert refused(send(peer, seen, body=body), why)
    assert not (peer.only.root / "0755").exists()


def test_a_form_has_to_end_with_its_own_signature(
    peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    first, second, third = (withheld(peer, strict, tmp_path, "upload_file") for _ in range(3))
    signature = form_of(first)[3]
    other = second.body.replace(form_of(second)[3], signature)
    assert refused(send(peer, second, body=other), "another request")
    start = third.body.rindex(b"\r\n--", 0, third.body.index(b'name="signature"'))
    end = third.body.rindex(b"\r\n--")
    without = third.body[:start] + third.body[end:]
    assert refused(send(peer, third, body=without), "no field")


@pytest.mark.parametrize("is_strict", [True, False])
def test_the_signature_of_a_form_is_no_token(
    is_strict: bool, peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    """It names no method and no path: taken for a token of the old kind it would open all."""
    peer.only.strict = is_strict
    seen = withheld(peer, strict, tmp_path, "upload_file")
    execute = "/v1/namespaces/default/code-interpreters/simple-codeinterpreter/invocations"
    for body in (b'{"command": ["id"], "timeout": "1s"}', b""):
        answer = send(
            peer,
            seen,
            target=f"{execute}/api/execute",
            body=body,
            headers={
                **seen.headers,
                "content-type": "application/json",
                "authorization": f"Bearer {form_of(seen)[3].decode()}",
            },
        )
        assert refused(answer, "not a token")


# Tokens of the old kind


def old_token(key: SessionKey, body: bytes) -> str:
    now = int(time.time())
    digest = hashlib.sha256(body).hexdigest()
    return key.sign({"iss": "sdk-client", "iat": now, "exp": now + 300, "body_sha256": digest})


def test_old_tokens_are_taken_where_the_session_is_not_strict(
    peer: Peer, make_client: MakeClient, tmp_path: Path
) -> None:
    pem = new_private_key()
    client = make_client(private_key=pem)
    client.start()
    seen = withheld(peer, client, tmp_path, "execute_command")
    headers = {**seen.headers, "authorization": f"Bearer {old_token(SessionKey(pem), seen.body)}"}
    assert [send(peer, seen, headers=headers)[0] for _ in range(2)] == [200, 200]
    peer.only.strict = True
    assert refused(send(peer, seen, headers=headers), "strict")


def test_what_the_server_refuses_is_an_authentication_error(
    peer: Peer, strict: CodeInterpreterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentcube._auth.os.urandom", bytes)
    strict.list_files()
    with pytest.raises(AuthenticationError, match="JWT verification failed: token was used before"):
        strict.list_files()


@pytest.mark.parametrize("missing", ["iat", "jti", "sid", "htm", "htu", "body_sha256"])
def test_a_bound_token_is_complete(
    missing: str, peer: Peer, make_client: MakeClient, tmp_path: Path
) -> None:
    pem = new_private_key()
    client = make_client(private_key=pem)
    client.start()
    seen = withheld(peer, client, tmp_path, "execute_command")
    claims = {name: value for name, value in seen.claims.items() if name != missing}
    headers = {**seen.headers, "authorization": f"Bearer {SessionKey(pem).sign(claims)}"}
    assert refused(send(peer, seen, headers=headers), "")
    if missing != "body_sha256":  # the body is looked at when the name is used up
        assert send(peer, seen)[0] == 200


def test_a_bound_token_is_short_lived_and_of_the_key(
    peer: Peer, make_client: MakeClient, tmp_path: Path
) -> None:
    pem = new_private_key()
    client = make_client(private_key=pem)
    client.start()
    seen = withheld(peer, client, tmp_path, "execute_command")
    claims, mine, now = seen.claims, SessionKey(pem), int(time.time())
    for token, why in (
        (mine.sign({**claims, "exp": claims["iat"] + 301}), "too long"),
        (mine.sign({**claims, "iat": now - 400, "exp": now - 100}), "expired"),
        (mine.sign({**claims, "iat": now + 200, "exp": now + 400}), "not yet valid"),
        (SessionKey(new_private_key()).sign(claims), "verification failed"),
    ):
        headers = {**seen.headers, "authorization": f"Bearer {token}"}
        assert refused(send(peer, seen, headers=headers), why), why
    assert send(peer, seen)[0] == 200


def test_a_form_is_signed_by_the_key(peer: Peer, make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"content")
    client = make_client()
    client.start()
    seen = withheld(peer, client, tmp_path, "upload_file")
    signature = form_of(seen)[3]
    forged = SessionKey(new_private_key()).sign(unverified(signature))
    body = seen.body.replace(signature, forged.encode())
    assert refused(send(peer, seen, body=body), "verification failed")
    assert peer.only.root.exists()
    assert list(peer.only.root.iterdir()) == []
