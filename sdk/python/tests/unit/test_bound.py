"""Each request is signed for itself alone; what that is good for, ``test_hostile`` tries."""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from between import USES, form_of, requests, unverified
from conftest import MakeClient
from peer import Peer
from peer.tokens import inside_of

from agentcube import CodeInterpreterClient, _forms
from agentcube._auth import FormSigner, SessionKey, request_claims
from agentcube._http import Transport, TransportError


@pytest.fixture(scope="module")
def key() -> SessionKey:
    return SessionKey()


# What is signed


@pytest.mark.parametrize("name", USES)
def test_every_request_is_bound_to_itself(
    name: str, peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    before = len(requests(peer))
    USES[name](strict, tmp_path)
    made = requests(peer)[before:]
    assert made
    for seen in made:
        claims = seen.claims
        assert (claims["iss"], claims["sid"]) == ("sdk-client", strict.session_id)
        assert claims["exp"] - claims["iat"] == 300
        assert abs(claims["iat"] - time.time()) < 60
        assert claims["htm"] == seen.method
        assert seen.target.partition("/invocations")[2] == claims["htu"]
        if seen.headers.get("content-type") == "application/json":
            assert claims["body_sha256"] == hashlib.sha256(seen.body).hexdigest()
        else:
            assert "body_sha256" not in claims


def test_no_two_requests_have_the_same_name(
    peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    for _ in range(3):
        for use in USES.values():
            use(strict, tmp_path)
    names = [seen.claims["jti"] for seen in requests(peer)]
    assert len(set(names)) == len(names) > 20
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in names)


@pytest.mark.parametrize(
    ("use", "inside"),
    [
        (lambda c: c.execute_command("true"), "/api/execute"),
        (lambda c: c.list_files("a/b"), "/api/files?path=a%2Fb"),
        (lambda c: c.download_file("a b/ü#?%.txt", "back"), "/api/files/a%20b/%C3%BC%23%3F%25.txt"),
    ],
)
def test_how_a_path_is_spelled(
    use: Callable[[CodeInterpreterClient], object],
    inside: str,
    peer: Peer,
    strict: CodeInterpreterClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    strict.write_file("x", "a b/ü#?%.txt")
    strict.write_file("x", "a/b/c")
    use(strict)
    assert requests(peer)[-1].claims["htu"] == inside


def test_a_prefix_of_the_url_is_not_in_it(make_client: MakeClient) -> None:
    with Peer(prefix="/invocations/api") as other:
        other.state.strict = True
        with make_client(workload_manager_url=other.url, router_url=other.url) as client:
            client.list_files()
            assert other.state.seen[-1].claims["htu"] == "/api/files?path=."


def test_all_bytes_of_a_path_are_spelled_alike(
    peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    every = "".join(chr(number) for number in range(1, 0x180) if chr(number) != "/")
    for name in (every[:120], every[120:180], every[180:240], "日本🙂", "%2e%2e%2f", "~", "..."):
        strict.upload_file(tmp_path / "local", name)
        strict.download_file(name, tmp_path / "back")
        strict.write_file("x", name)
        path = "/api/files/" + name
        assert inside_of(path, "") in {seen.claims["htu"] for seen in requests(peer)}


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 5_000_001])
def test_a_form_ends_with_the_hash_of_its_file(
    size: int, peer: Peer, strict: CodeInterpreterClient, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    local.write_bytes(content)
    strict.upload_file(local, "d/ü \n.bin")
    assert (peer.only.root / "d/ü \n.bin").read_bytes() == content
    seen = requests(peer)[-1]
    claims = unverified(form_of(seen)[3])
    times = {name: seen.claims[name] for name in ("iss", "iat", "exp", "jti")}
    assert claims == {
        **times,
        "path": "d/ü \n.bin",
        "mode": "0644",
        "content_sha256": hashlib.sha256(content).hexdigest(),
    }


def test_large_content_is_signed_like_a_file(
    peer: Peer, strict: CodeInterpreterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentcube._requests.MAX_JSON_CONTENT", 10)
    strict.write_file(b"x" * 11, "large")
    claims = unverified(form_of(requests(peer)[-1])[3])
    assert claims["content_sha256"] == hashlib.sha256(b"x" * 11).hexdigest()


def test_a_session_without_a_key_signs_nothing(
    peer: Peer, make_client: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "local").write_bytes(b"content")
    make_client().start()
    peer.only.key = None
    peer.state.token = "secret"
    client = make_client(session_id=peer.only.id, auth_token="secret")
    client.write_file("", "in/ü?#%&~.txt")
    for use in USES.values():
        use(client, tmp_path)
    assert {seen.bearer for seen in requests(peer)} == {"secret"}
    (form,) = (s for s in requests(peer) if "form-data" in s.headers.get("content-type", ""))
    assert len(form_of(form)) == 3
    assert b"signature" not in form.body
    peer.state.token = None


# What it costs


@pytest.mark.parametrize("bits", [2048, 2056, 3072])
def test_the_room_for_a_signature_is_what_it_takes(bits: int) -> None:
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    pem = rsa.generate_private_key(public_exponent=65537, key_size=bits).private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    )
    key = SessionKey(pem)
    for path in ("a", "bb", "ccc", 'ü日🙂"\\\n'):
        signer = FormSigner(key, request_claims("s", "POST", "/api/files", None), path, "0644")
        assert len(signer.sign("f" * 64)) == signer.length


def test_the_file_is_read_once(key: SessionKey) -> None:
    class Once(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            chunk = super().read(size)
            self.taken += len(chunk)
            return chunk

        def seek(self, *_: Any) -> int:
            raise AssertionError

    source = Once(b"x" * 600_000)
    signer = FormSigner(key, request_claims("s", "POST", "/api/files", None), "p", "0644")
    form = _forms.Multipart("p", "p", source, 600_000, None).signed(signer.length, signer.sign)
    assert sum(len(piece) for piece in form) == form.content_length
    assert source.taken == 600_000


def test_how_many_signatures_are_made(
    peer: Peer,
    strict: CodeInterpreterClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[bytes] = []
    sign = jwt.algorithms.RSAAlgorithm.sign

    def counted(algorithm: Any, message: bytes, private: Any) -> bytes:
        made.append(message)
        return sign(algorithm, message, private)

    monkeypatch.setattr(jwt.algorithms.RSAAlgorithm, "sign", counted)
    for name, use in USES.items():
        made.clear()
        before = len(requests(peer))
        use(strict, tmp_path)
        count = len(requests(peer)) - before
        assert len(made) == count + (name == "upload_file"), name


# Attempts


@pytest.mark.parametrize("name", ["execute_command", "upload_file", "list_files"])
def test_each_attempt_is_signed_anew(
    name: str,
    peer: Peer,
    strict: CodeInterpreterClient,
    tmp_path: Path,
    sleeps: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens: list[str] = []
    real = Transport.send

    def refuse_twice(transport: Transport, request: Any, authorization: str, channel: Any) -> Any:
        tokens.append(authorization)
        if len(tokens) < 3:
            raise TransportError("refused", "connection refused")
        return real(transport, request, authorization, channel)

    monkeypatch.setattr(Transport, "send", refuse_twice)
    USES[name](strict, tmp_path)
    assert len({unverified(token)["jti"] for token in tokens}) == 3
    assert requests(peer)[-1].bearer == tokens[-1]


def test_a_form_that_took_long_is_dated_when_it_ends(key: SessionKey) -> None:
    """The server looks at the signature when the whole file has come."""
    begun = time.time() - 1000
    claims = request_claims("s", "POST", "/api/files", None, now=begun)
    signer = FormSigner(key, claims, "p", "0644")
    signature = signer.sign("0" * 64)
    assert len(signature) == signer.length
    late = unverified(signature)
    assert abs(late["iat"] - time.time()) < 60
    assert late["exp"] - late["iat"] == 300
    assert late["jti"] == claims["jti"]
