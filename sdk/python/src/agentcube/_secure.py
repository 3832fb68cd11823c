"""TLS from this process to the agent in the sandbox, which whoever is in between cannot open."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ._auth import SessionKey

if TYPE_CHECKING:
    import ssl

_LIFE = dt.timedelta(days=3650)


@dataclass(frozen=True)
class Secure:
    """How a session is reached, as the server describes it.

    Attributes:
        server_name: What the ClientHello names, by which the Router finds the session.
        certificate: The agent's certificate in PEM, the only one that is trusted.
    """

    server_name: str
    certificate: str


@dataclass
class Channel:
    """The two ends of the connections to one session: its certificate and its key."""

    secure: Secure
    key: SessionKey = field(repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def server_name(self) -> str:
        """The name of the other end."""
        return self.secure.server_name

    def context(self) -> ssl.SSLContext:
        """What connections are made with; made at the first of them.

        Raises:
            OSError: The certificate or the key cannot be used.
        """
        with self._lock:
            if self._context is None:
                self._context = _make_context(self.secure, self.key)
            return self._context


def _make_context(secure: Secure, key: SessionKey) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415

    # Not the default context: that trusts the certificates of the system.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=secure.certificate)
    _load(context, key)
    return context


def _load(context: ssl.SSLContext, key: SessionKey) -> None:
    """Load the key as a client certificate. The library reads it from files alone."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        file = os.memfd_create("agentcube")  # memory with a descriptor, on no disk
        try:
            os.write(file, _self_signed(key) + key.private_pem().encode("ascii"))
            context.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)
        return
    # Elsewhere a file for a moment, encrypted with what only this process knows.
    password = os.urandom(32).hex()
    handle, path = tempfile.mkstemp(prefix="agentcube-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(_self_signed(key) + key.encrypted_pem(password))
        context.load_cert_chain(path, password=password)
    finally:
        with suppress(OSError):
            Path(path).unlink()


def _self_signed(key: SessionKey) -> bytes:
    """A certificate of the session's key in PEM. Nothing but the key in it counts."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    private = key.private_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AgentCube client")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - _LIFE)
        .not_valid_after(now + _LIFE)
        .sign(private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)
