from __future__ import annotations

import datetime as dt
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from peer import Peer, stalled

from agentcube import APIConnectionError, APIStatusError, CodeInterpreterClient, _http

EXECUTE = "/invocations/api/execute"


def test_connections_are_kept(peer: Peer, client: CodeInterpreterClient) -> None:
    with client:
        for _ in range(20):
            client.execute_command("true")
            client.list_files()
    assert peer.state.connections == 1


def test_the_answer_of_an_error_is_read_so_that_its_connection_is_kept(
    peer: Peer, client: CodeInterpreterClient
) -> None:
    client.start()
    for _ in range(5):
        with pytest.raises(APIStatusError):
            client.list_files("missing")
    assert peer.state.connections == 1


def test_an_answer_that_is_not_read_to_its_end_costs_the_connection(
    peer: Peer, client: CodeInterpreterClient
) -> None:
    client.start()
    peer.answer("GET", "/api/files", 500, b"x" * 1_000_000)
    with pytest.raises(APIStatusError):
        client.list_files()
    assert client.list_files() == []
    assert peer.state.connections == 2


def test_a_connection_that_the_server_closed_is_not_used_again(
    peer: Peer, client: CodeInterpreterClient
) -> None:
    def answer_and_close(handler: Any) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.answer(200, {"exit_code": 0, "stdout": "", "stderr": ""})
        handler.close_connection = True

    closed = threading.Event()

    def act(handler: Any) -> None:
        answer_and_close(handler)
        handler.connection.shutdown(socket.SHUT_WR)
        closed.set()

    client.start()
    peer.on("POST", EXECUTE, act)
    client.execute_command("true")
    assert closed.wait(60)
    assert client.execute_command("echo again") == "again\n"


def test_an_old_connection_is_not_used_again(
    peer: Peer, client: CodeInterpreterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.start()
    monkeypatch.setattr(_http, "_MAX_IDLE_SECONDS", -1.0)
    client.execute_command("true")
    assert peer.state.connections == 2


def test_localhost_means_ipv4_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        tried: list[int] = []
        real = socket.socket.connect

        def connect(self: socket.socket, address: Any) -> None:
            tried.append(self.family)
            real(self, address)

        both = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(both))
        monkeypatch.setattr(socket.socket, "connect", connect)
        _http._dial("localhost", port, 60).close()
        assert tried == [socket.AF_INET]


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", unused.getsockname()),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", server.getsockname()),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        _http._dial("host.example", 1, 60).close()


def test_a_host_that_does_not_exist(make_client: MakeClient) -> None:
    client = make_client(workload_manager_url="http://no-such-host.invalid", max_retries=0)
    with pytest.raises(APIConnectionError, match=r"no-such-host\.invalid"):
        client.start()


def test_something_that_does_not_speak_http(make_client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(APIConnectionError) as caught:
            make_client(workload_manager_url=url, max_retries=0).start()
        thread.join()
        assert "mail ready" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(
    status: int, peer: Peer, client: CodeInterpreterClient, tmp_path: Path
) -> None:
    """They could carry the token or the signature to another machine."""
    with Peer() as other:
        peer.answer("GET", "/api/files/", status, b"", {"Location": other.url + "/x"})
        with pytest.raises(APIStatusError, match="redirected"):
            client.download_file("f", tmp_path / "f")
        assert other.state.seen == []


def test_a_prefix_of_the_url_is_kept(clean_environment: None) -> None:
    with Peer(prefix="/some/where") as peer:
        client = CodeInterpreterClient(workload_manager_url=peer.url + "/", router_url=peer.url)
        with client:
            assert client.execute_command("echo x") == "x\n"
        assert all(seen.target.startswith("/some/where/v1/") for seen in peer.state.seen)


def test_a_proxy_is_used_for_other_machines(
    peer: Peer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", peer.url)
    seen = peer.answer("POST", "http://agentcube.example/v1/", 401, {"error": "no"})
    with pytest.raises(APIStatusError):
        make_client(workload_manager_url="http://agentcube.example").start()
    assert seen[0].target == "http://agentcube.example/v1/code-interpreter"
    assert seen[0].headers["host"] == "agentcube.example"


def test_the_local_token_goes_through_no_proxy(
    peer: Peer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("local-token")
    monkeypatch.setenv("AGENTCUBE_TOKEN_FILE", str(token))
    with Peer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with make_client():
            assert peer.requests("POST")[0].bearer == "local-token"
        assert proxy.state.seen == []
        proxy.answer("POST", "example", 401, {"error": "no"})
        with pytest.raises(APIStatusError):
            make_client(workload_manager_url="http://agentcube.example").start()
        assert "authorization" not in proxy.state.seen[0].headers


def test_nothing_of_the_library_is_raised(peer: Peer, client: CodeInterpreterClient) -> None:
    def garbage(handler: Any) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.wfile.write(b"HTTP/1.1 banana\r\n\r\n")
        handler.close_connection = True

    client.start()
    peer.on("POST", EXECUTE, garbage)
    with pytest.raises(APIConnectionError):
        client.execute_command("true")


def test_sockets_are_closed(peer: Peer, make_client: MakeClient) -> None:
    """An unclosed one would give a ResourceWarning, which fails the tests."""
    release = threading.Event()
    client = make_client(control_timeout=0.05)
    client.start()
    peer.on("GET", "/api/files", stalled(release))
    with pytest.raises(APIConnectionError):
        client.list_files()
    release.set()
    client.stop()
    assert client._session._transport._idle == []


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                    x509.DNSName("agentcube.example"),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


@pytest.fixture
def tls_peer(clean_environment: None, certificate: Path) -> Iterator[Peer]:
    peer = Peer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    peer.wrap(context)
    with peer:
        yield peer


def test_tls(
    tls_peer: Peer, certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = tls_peer.url.replace("http://", "https://")
    unknown = CodeInterpreterClient(workload_manager_url=url, router_url=url, max_retries=0)
    with pytest.raises(APIConnectionError, match=r"(?i)certificate"):
        unknown.start()

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with CodeInterpreterClient(workload_manager_url=url, router_url=url) as client:
        (tmp_path / "f").write_bytes(b"x" * 1_000_000)
        client.upload_file(tmp_path / "f", "f")
        client.download_file("f", tmp_path / "g")
        assert (tmp_path / "g").stat().st_size == 1_000_000

    # The certificate is for 127.0.0.1, not for the name.
    other = url.replace("127.0.0.1", "localhost")
    wrong = CodeInterpreterClient(workload_manager_url=other, router_url=other, max_retries=0)
    with pytest.raises(APIConnectionError, match=r"(?i)certificate"):
        wrong.start()


def test_tls_through_a_proxy(
    tls_peer: Peer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy carries bytes it cannot read, to the name that was asked for."""
    asked: list[bytes] = []

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # either end may hang up at any moment
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def serve() -> None:
            client, _ = proxy.accept()
            with client, socket.create_connection(("127.0.0.1", tls_peer.port)) as server:
                asked.append(client.recv(65536))
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=carry, args=(server, client))
                back.start()
                carry(client, server)
                back.join()

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        url = "https://agentcube.example"
        token = "very-secret"
        with CodeInterpreterClient(
            workload_manager_url=url, router_url=url, auth_token=token
        ) as client:
            assert client.execute_command("echo x") == "x\n"
        thread.join()
    assert asked[0].startswith(b"CONNECT agentcube.example:443 HTTP/1.")
    assert token.encode() not in asked[0]


@pytest.mark.parametrize(("size", "pieces"), [(10, 1), (100_000, 2)])
def test_a_small_request_is_sent_in_one_piece(
    size: int,
    pieces: int,
    client: CodeInterpreterClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.start()
    sent: list[bytes] = []
    send = http.client.HTTPConnection.send

    def counted(connection: http.client.HTTPConnection, data: bytes) -> None:
        sent.append(data)
        send(connection, data)

    monkeypatch.setattr(http.client.HTTPConnection, "send", counted)
    client.write_file("x" * size, "file")
    assert len(sent) == pieces
    assert client.execute_command("wc -c < file").strip() == str(size)
