"""A Router that answers in the place of the sandbox, where a session has a key."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import MakeClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from peer import Peer

from agentcube import AgentCubeError, APIConnectionError, CodeInterpreterClient

NAME = "s-1.session.agentcube"
DONE = b'{"stdout": "", "stderr": "", "exit_code": 0, "duration": 0}'


class Ends:
    """A certificate and its key, as the agent makes them for a session."""

    def __init__(self, folder: Path, name: str, issuer: str = "AgentCube session") -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
        now = dt.datetime.now(dt.timezone.utc)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.certificate = made.public_bytes(serialization.Encoding.PEM).decode()
        self.file = folder / f"{len(list(folder.iterdir()))}.pem"
        self.file.write_bytes(
            self.certificate.encode()
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file)
        return context


class Impostor:
    """Takes connections, and keeps what it could read on them."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.read = bytearray()
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            with suppress(OSError), raw:
                self._serve(raw)

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(10)
        if self._context is None:
            self._answer(raw)
            return
        with self._context.wrap_socket(raw, server_side=True) as conn:
            self._answer(conn)

    def _answer(self, conn: socket.socket) -> None:
        self.read += conn.recv(65536)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
        conn.sendall(head + f"Content-Length: {len(DONE)}\r\n\r\n".encode() + DONE)


@pytest.fixture
def its(tmp_path: Path) -> Ends:
    return Ends(tmp_path, NAME)


@pytest.fixture
def impostors() -> Iterator[list[Impostor]]:
    made: list[Impostor] = []
    yield made
    for impostor in made:
        impostor.close()


def client_of(
    peer: Peer,
    make_client: MakeClient,
    secure: dict[str, str],
    router: Impostor,
    scheme: str = "http",
) -> CodeInterpreterClient:
    """A client of a session that can be reached by TLS, of which the Router is another."""
    described = {
        "sessionId": "s-1",
        "kind": "CodeInterpreter",
        "namespace": "default",
        "name": "simple-codeinterpreter",
        "state": "running",
        "secure": secure,
    }
    peer.answer("POST", "/v1/code-interpreter", 200, {"sessionId": "s-1", "session": described})
    peer.answer("GET", "/v1/sessions/s-1", 200, described, times=1000)
    return make_client(router_url=f"{scheme}://127.0.0.1:{router.port}", max_retries=0)


def use(
    peer: Peer,
    make_client: MakeClient,
    impostors: list[Impostor],
    context: ssl.SSLContext | None,
    certificate: str,
    name: str = NAME,
) -> tuple[bool, bytes]:
    """Whether a command was sent and answered, and what the Router has read."""
    impostors.append(Impostor(context))
    secure = {"serverName": name, "certificate": certificate}
    client = client_of(peer, make_client, secure, impostors[-1])
    try:
        client.execute_command("echo very-secret")
    except AgentCubeError:
        return False, bytes(impostors[-1].read)
    return True, bytes(impostors[-1].read)


def test_the_sandbox_itself_is_spoken_to(
    peer: Peer, make_client: MakeClient, impostors: list[Impostor], its: Ends
) -> None:
    """The others here are refused for what is wrong with them, and for nothing else."""
    done, read = use(peer, make_client, impostors, its.context(), its.certificate)
    assert done
    assert b"very-secret" in read


def test_a_router_with_tls_of_its_own_is_passed(
    peer: Peer, make_client: MakeClient, impostors: list[Impostor], its: Ends
) -> None:
    impostors.append(Impostor(its.context()))
    secure = {"serverName": NAME, "certificate": its.certificate}
    client_of(peer, make_client, secure, impostors[0], "https").execute_command("echo very-secret")
    assert b"very-secret" in impostors[0].read


def test_who_ends_tls_is_told_of(
    peer: Peer,
    make_client: MakeClient,
    impostors: list[Impostor],
    its: Ends,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A load balancer, whose certificate is good for its own name, reads nothing unasked."""
    balancer = Ends(tmp_path, "balancer.example", "Authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(balancer.file))
    impostors.append(Impostor(balancer.context()))
    secure = {"serverName": NAME, "certificate": its.certificate}
    client = client_of(peer, make_client, secure, impostors[0], "https")
    with pytest.raises(APIConnectionError, match=r"ends TLS, or is hostile.*encrypt=False"):
        client.execute_command("echo very-secret")
    assert impostors[0].read == b""


def test_another_certificate_is_refused(
    peer: Peer, make_client: MakeClient, impostors: list[Impostor], its: Ends, tmp_path: Path
) -> None:
    own = Ends(tmp_path, NAME)
    assert use(peer, make_client, impostors, own.context(), its.certificate) == (False, b"")


def test_no_authority_is_trusted(
    peer: Peer,
    make_client: MakeClient,
    impostors: list[Impostor],
    its: Ends,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also not those that the whole machine trusts."""
    own = Ends(tmp_path, NAME, "Authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(own.file))
    assert use(peer, make_client, impostors, own.context(), its.certificate) == (False, b"")


def test_the_certificate_of_another_session_is_refused(
    peer: Peer, make_client: MakeClient, impostors: list[Impostor], its: Ends
) -> None:
    other = "s-2.session.agentcube"
    done = use(peer, make_client, impostors, its.context(), its.certificate, other)
    assert done == (False, b"")


def test_an_older_protocol_is_refused(
    peer: Peer, make_client: MakeClient, impostors: list[Impostor], its: Ends
) -> None:
    context = its.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert use(peer, make_client, impostors, context, its.certificate) == (False, b"")


def test_nothing_is_sent_in_plain_text(
    peer: Peer, make_client: MakeClient, impostors: list[Impostor], its: Ends
) -> None:
    done, read = use(peer, make_client, impostors, None, its.certificate)
    assert not done
    assert read.startswith(b"\x16\x03")
    assert b"very-secret" not in read
    assert b"Bearer" not in read


@pytest.mark.parametrize("certificate", ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_an_unreadable_certificate_is_an_error(
    certificate: str, peer: Peer, make_client: MakeClient, impostors: list[Impostor]
) -> None:
    assert use(peer, make_client, impostors, None, certificate) == (False, b"")
