from __future__ import annotations

import base64
import os
import pickle
import re
import threading

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agentcube import CodeInterpreterClient, ConfigurationError
from agentcube._auth import SessionKey, request_claims

PRIVATE = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def pem_of(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None
) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(*PRIVATE, encryption)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_the_public_half_is_unpadded_base64_of_pem() -> None:
    text = SessionKey().public_key_field()
    assert "=" not in text
    pem = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    assert pem.startswith(b"-----BEGIN PUBLIC KEY-----\n")
    assert pem.endswith(b"-----END PUBLIC KEY-----\n")
    key = serialization.load_pem_public_key(pem)
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048
    assert key.public_numbers().e == 65537


def test_every_session_has_its_own_key() -> None:
    assert SessionKey().public_key_field() != SessionKey().public_key_field()


def test_signatures_can_be_checked_with_the_public_half(rsa_key: rsa.RSAPrivateKey) -> None:
    token = SessionKey(pem_of(rsa_key)).sign(request_claims("s", "POST", "/api/execute", "ab" * 32))
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT"}
    claims = jwt.decode(token, rsa_key.public_key(), algorithms=["RS256"])
    assert claims["body_sha256"] == "ab" * 32


def test_claims() -> None:
    claims = request_claims("sid", "GET", "/api/files?path=.", None, now=1000.9)
    assert re.fullmatch("[0-9a-f]{32}", str(claims.pop("jti")))
    assert claims == {
        "iss": "sdk-client",
        "iat": 1000,
        "exp": 1300,
        "sid": "sid",
        "htm": "GET",
        "htu": "/api/files?path=.",
    }
    assert request_claims("sid", "POST", "/api/execute", "aa", now=0)["body_sha256"] == "aa"


def test_a_key_given_as_text_or_bytes(rsa_key: rsa.RSAPrivateKey) -> None:
    pem = pem_of(rsa_key)
    assert SessionKey(pem).public_key_field() == SessionKey(pem.decode()).public_key_field()


def test_malformed_keys_are_refused_and_not_repeated(rsa_key: rsa.RSAPrivateKey) -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    elliptic = ec.generate_private_key(ec.SECP256R1())
    cases = {
        pem_of(rsa_key, b"password"): "encrypted",
        pem_of(small): "1024 bits",
        pem_of(elliptic): "not an RSA key",
        pem_of(rsa_key)[:200]: "not the PEM text",
        b"very-secret": "not the PEM text",
        b"": "not the PEM text",
    }
    for pem, reason in cases.items():
        with pytest.raises(ConfigurationError, match=reason) as caught:
            CodeInterpreterClient(private_key=pem)
        assert "very-secret" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_the_key_is_not_shown_and_not_pickled() -> None:
    key = SessionKey()
    assert repr(key) == "<SessionKey>"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(key)


def test_many_threads_get_the_same_key() -> None:
    key = SessionKey()
    fields: list[str] = []
    threads = [
        threading.Thread(target=lambda: fields.append(key.public_key_field())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fields) == 8
    assert len(set(fields)) == 1


def test_a_machine_without_a_thread_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert SessionKey().public_key_field()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_the_key_is_made_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(SessionKey, "_generate", lambda _: gate.wait())
    key = SessionKey()
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if key.public_key_field() else 1)
        _, status = os.waitpid(pid, 0)
        assert status == 0
    finally:
        gate.set()
