"""Who may use a session: a key for each of them, and what is signed with it."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_KEY_BITS = 2048
_SIGNATURE_LIFE = 300  # seconds
_HS256_BYTES = 32


class SessionKey:
    """The key of one session: an RSA key whose private half stays in this object.

    Making a key takes tens to hundreds of milliseconds, most of them outside the
    interpreter lock, so a thread does it while the program gets on. Whoever needs
    the key waits for the rest of that time.
    """

    def __init__(self, pem: str | bytes | None = None) -> None:
        """Begin to make a key, or load a private one from its PEM text.

        Raises:
            ConfigurationError: The text is not an unencrypted RSA key of 2048 bits or more.
        """
        self._lock = threading.Lock()
        self._key: RSAPrivateKey | None = None
        self._thread: threading.Thread | None = None
        if pem is not None:
            self._key = _load_private_key(pem)
            return
        # Not a daemon: the interpreter must not be torn down around OpenSSL.
        thread = threading.Thread(target=self._generate, name="agentcube-key")
        with suppress(RuntimeError):  # no more threads to be had: made when it is needed
            thread.start()
            self._thread = thread

    def __repr__(self) -> str:
        return "<SessionKey>"

    def __reduce__(self) -> str:
        raise TypeError("a session key cannot be pickled")

    def public_key_field(self) -> str:
        """The public half as the create request carries it: unpadded base64 of its PEM text."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        pem = (
            self.private_key()
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return base64.b64encode(pem).rstrip(b"=").decode("ascii")

    def private_pem(self) -> str:
        """The private half as PEM text (PKCS#8), not encrypted; never to be logged or stored."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        pem = self.private_key().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return pem.decode("ascii")

    def encrypted_pem(self, password: str) -> bytes:
        """The private half as PEM text (PKCS#8), encrypted."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        return self.private_key().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode("ascii")),
        )

    def sign(self, claims: Mapping[str, str | int]) -> str:
        """A JWT over the claims, signed with RS256."""
        import jwt  # noqa: PLC0415

        return jwt.encode(dict(claims), self.private_key(), algorithm="RS256")

    def signed_length(self, claims: Mapping[str, str | int]) -> int:
        """How many bytes :meth:`sign` would return; costs no signature."""
        import jwt  # noqa: PLC0415

        # The same token but for its own signature, which takes no time.
        token = jwt.encode(dict(claims), bytes(_HS256_BYTES), algorithm="HS256")
        return (
            len(token)
            - _base64_length(_HS256_BYTES)
            + _base64_length((self.private_key().key_size + 7) // 8)
        )

    def private_key(self) -> RSAPrivateKey:
        """The key itself, for those who make something with it."""
        if self._thread is not None:
            self._thread.join()
        if self._key is None:  # in a process forked off while the thread was at it
            with self._lock:
                if self._key is None:
                    self._key = _new_private_key()
        return self._key

    def _generate(self) -> None:
        key = _new_private_key()
        import jwt  # noqa: F401, PLC0415  (slow to import: done here, while nobody waits)

        self._key = key


class FormSigner:
    """Signs the form that comes with a request, once the hash of its file is known.

    Attributes:
        length: Bytes of the signature, whatever the hash will be.
    """

    def __init__(
        self, key: SessionKey, request: Mapping[str, str | int], path: str, mode: str
    ) -> None:
        """Take issuer, times and ``jti`` from the claims of the request's own token."""
        self._key = key
        self._claims = {name: request[name] for name in ("iss", "iat", "exp", "jti")}
        self._claims |= {"path": path, "mode": mode}
        self.length = key.signed_length({**self._claims, "content_sha256": "0" * 64})

    def sign(self, content_sha256: str) -> str:
        """The value of the field ``signature``; the hash is in lower-case hex."""
        now = int(time.time())
        if now - int(self._claims["iat"]) > _SIGNATURE_LIFE // 2:
            # The server looks at its times when the whole file is there: it takes longer
            # than a signature lives to send a large one over a slow line.
            self._claims |= _lifetime(now)
        return self._key.sign({**self._claims, "content_sha256": content_sha256})


def request_claims(
    session_id: str, method: str, inside: str, body_sha256: str | None, now: float | None = None
) -> dict[str, str | int]:
    """The claims that bind a token to one request of the data plane; to be used once.

    Args:
        session_id: Whose sandbox it goes to.
        method: In capitals.
        inside: Path and query as the sandbox sees them, see ``Request.inside``.
        body_sha256: The hash of a JSON body; other bodies are not in this token.
        now: Seconds since 1970. Default: the time of this machine.
    """
    claims: dict[str, str | int] = {
        "iss": "sdk-client",
        **_lifetime(int(time.time() if now is None else now)),
        "jti": os.urandom(16).hex(),
        "sid": session_id,
        "htm": method,
        "htu": inside,
    }
    if body_sha256 is not None:
        claims["body_sha256"] = body_sha256
    return claims


def agreement_claims(
    session_id: str, method: str, path: str, body_sha256: str | None
) -> dict[str, str | int]:
    """What the holder of a session's key signs to agree to a copy of it; used once."""
    return {
        "sid": session_id,
        "htm": method,
        "htu": path,
        "body_sha256": body_sha256 or "",
        "jti": os.urandom(16).hex(),
        **_lifetime(int(time.time())),
    }


def _base64_length(count: int) -> int:
    return (count * 4 + 2) // 3  # without padding


def _lifetime(issued: int) -> dict[str, str | int]:
    return {"iat": issued, "exp": issued + _SIGNATURE_LIFE}


def _new_private_key() -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    return rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)


def _load_private_key(pem: str | bytes) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415

    if not isinstance(pem, (str, bytes)):
        raise TypeError(f"private_key is PEM text, not {type(pem).__name__}")
    raw = pem.encode("utf-8", "replace") if isinstance(pem, str) else pem
    problem = ""
    try:
        key = serialization.load_pem_private_key(raw, password=None)
    except TypeError:
        problem = "private_key is encrypted; decrypt it first"
    except (ValueError, UnsupportedAlgorithm):
        problem = "private_key is not the PEM text of a private key"
    if problem:  # raised here, without the cause and its context: they may quote the text
        raise ConfigurationError(problem)
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError("private_key is not an RSA key")
    if key.key_size < _KEY_BITS:
        raise ConfigurationError(f"private_key has {key.key_size} bits; {_KEY_BITS} are needed")
    return key
