from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from agentcube import CodeInterpreterClient, ConfigurationError, _settings, _tokens
from agentcube._settings import Endpoint, TokenSettings, parse_url

pytestmark = pytest.mark.usefixtures("clean_environment")

LOCAL = parse_url("http://localhost:8080", "test")
REMOTE = parse_url("https://agentcube.example:8443", "test")


def resolve(**options: Any) -> _settings.Settings:
    values: dict[str, Any] = {
        "name": "simple-codeinterpreter",
        "namespace": "default",
        "ttl": 3600,
        "workload_manager_url": None,
        "router_url": None,
        "auth_token": None,
        "timeouts": _settings.Timeouts(),
        "max_retries": 3,
    }
    return _settings.resolve(**{**values, **options})


def test_without_settings_both_planes_are_on_localhost() -> None:
    settings = resolve()
    assert str(settings.workload_manager) == "http://localhost:8080"
    assert str(settings.router) == "http://localhost:8080"


def test_whether_a_template_is_named() -> None:
    unnamed = resolve(name=None, namespace=None)
    assert (unnamed.name, unnamed.namespace) == ("simple-codeinterpreter", "default")
    assert not unnamed.named
    for options in ({"name": None}, {"namespace": None}, {}):
        settings = resolve(**options)
        assert (settings.name, settings.namespace) == ("simple-codeinterpreter", "default")
        assert settings.named


@pytest.mark.parametrize("variable", ["WORKLOAD_MANAGER_URL", "WORKLOADMANAGER_URL"])
def test_both_spellings_of_the_variable(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://wm.example:1")
    settings = resolve()
    assert str(settings.workload_manager) == "http://wm.example:1"
    # The router has its own setting and its own default.
    assert str(settings.router) == "http://localhost:8080"


def test_arguments_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKLOAD_MANAGER_URL", "http://a.example")
    monkeypatch.setenv("WORKLOADMANAGER_URL", "http://b.example")
    monkeypatch.setenv("ROUTER_URL", "http://c.example")
    assert str(resolve().workload_manager) == "http://a.example"
    assert str(resolve().router) == "http://c.example"
    settings = resolve(workload_manager_url="http://d.example", router_url="http://e.example")
    assert str(settings.workload_manager) == "http://d.example"
    assert str(settings.router) == "http://e.example"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_URL", "")
    monkeypatch.setenv("API_TOKEN", "")
    monkeypatch.setenv("AGENTCUBE_TOKEN", "second")
    assert str(resolve().router) == "http://localhost:8080"
    assert resolve().tokens.fixed == "second"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host", Endpoint("http", "host", 80)),
        ("https://host/", Endpoint("https", "host", 443)),
        ("HTTP://Host:8080/", Endpoint("http", "host", 8080)),
        ("https://host/some/where/", Endpoint("https", "host", 443, "/some/where")),
        ("http://[::1]:8080", Endpoint("http", "::1", 8080)),
    ],
)
def test_urls(url: str, expected: Endpoint) -> None:
    assert parse_url(url, "test") == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://host?query",
        "http://host#fragment",
        "http://ho st",
        "http://host\r\nX: y",
        "http://host\\@other",
        "http://hóst",
    ],
)
def test_malformed_urls(url: str) -> None:
    with pytest.raises(ConfigurationError, match="router_url"):
        CodeInterpreterClient(router_url=url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url("http://user:hunter2@host", "router_url")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("example", False),
        ("::", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert Endpoint("http", host, 8080).is_loopback is loopback


@pytest.mark.parametrize(
    "name", ["", "UPPER", "a_b", "-a", "a-", "a/b", "..", "a b", "a" * 254, "a\n", "ä"]
)
def test_malformed_names(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        CodeInterpreterClient(name)
    with pytest.raises(ConfigurationError, match="namespace"):
        CodeInterpreterClient("fine", name)


@pytest.mark.parametrize("ttl", [0, -1])
def test_ttl_out_of_range(ttl: int) -> None:
    with pytest.raises(ConfigurationError, match="ttl"):
        CodeInterpreterClient(ttl=ttl)


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": 1.5},
        {"ttl": True},
        {"ttl": "3600"},
        {"name": 3},
        {"namespace": b"default"},
        {"router_url": 3},
        {"auth_token": b"x"},
        {"session_id": 3},
        {"private_key": 3},
        {"max_retries": 1.5},
        {"connect_timeout": "5"},
    ],
)
def test_settings_of_wrong_type(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        CodeInterpreterClient(**options)


@pytest.mark.parametrize(
    "option", ["connect_timeout", "create_timeout", "control_timeout", "transfer_timeout"]
)
def test_timeouts_are_named_when_malformed(option: str) -> None:
    with pytest.raises(ConfigurationError, match=option):
        CodeInterpreterClient(**{option: 0})  # type: ignore[arg-type]


def test_negative_retries() -> None:
    with pytest.raises(ConfigurationError, match="max_retries"):
        CodeInterpreterClient(max_retries=-1)


# Tokens


def bearer(settings: TokenSettings, endpoint: Endpoint = LOCAL) -> str | None:
    return _tokens.BearerTokens(settings).token_for(endpoint)


def token_file(path: Path, token: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token)
    path.chmod(mode)
    return path


def test_order_of_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    account = token_file(tmp_path / "account", "of-account\n", 0o644)
    monkeypatch.setattr(_settings, "SERVICE_ACCOUNT_TOKEN", account)
    monkeypatch.setattr(_settings, "PROJECTED_TOKEN", tmp_path / "projected")
    assert bearer(resolve().tokens) == "of-account"
    token_file(tmp_path / "projected", " for-agentcube\n", 0o644)
    assert bearer(resolve().tokens) == "for-agentcube"
    assert bearer(resolve().tokens, REMOTE) == "for-agentcube"
    token_file(Path.home() / ".config/agentcube/token", "local\n")
    assert bearer(resolve().tokens) == "local"
    assert bearer(resolve().tokens, REMOTE) == "for-agentcube"
    monkeypatch.setenv("AGENTCUBE_TOKEN_FILE", str(token_file(tmp_path / "named", "na.m-e.d_")))
    assert bearer(resolve().tokens) == "na.m-e.d_"
    assert bearer(resolve().tokens, REMOTE) == "na.m-e.d_"
    monkeypatch.setenv("AGENTCUBE_TOKEN", "second")
    assert bearer(resolve().tokens) == "second"
    monkeypatch.setenv("API_TOKEN", "first")
    assert bearer(resolve().tokens) == "first"
    assert bearer(resolve(auth_token="argument").tokens) == "argument"
    provider = _tokens.TokenAuth("provided")
    assert bearer(resolve(auth_token="argument", auth=provider).tokens) == "provided"


@pytest.mark.parametrize(
    ("token", "leaves"),
    [
        ("ac_" + "x" * 43, False),
        ("chosen-by-the-operator.of-this-machine", False),
        ("act_" + "x" * 43, True),
        ("head.claims.signature", True),
    ],
)
def test_which_tokens_of_a_named_file_leave_this_machine(
    token: str, leaves: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENTCUBE_TOKEN_FILE", str(token_file(tmp_path / "named", token)))
    assert bearer(resolve().tokens) == token
    assert bearer(resolve().tokens, REMOTE) == (token if leaves else None)


def test_the_local_token_stays_on_this_machine(tmp_path: Path) -> None:
    settings = TokenSettings(token_file=token_file(tmp_path / "token", "local"))
    assert bearer(settings, LOCAL) == "local"
    for url in ("http://10.0.0.1", "https://localhost.example", "http://127.0.0.1.example"):
        assert bearer(settings, parse_url(url, "test")) is None


def test_places_of_the_local_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert resolve().tokens.token_file == Path.home() / ".config/agentcube/token"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert resolve().tokens.token_file == tmp_path / "agentcube/token"
    monkeypatch.setenv("AGENTCUBE_TOKEN_FILE", "/elsewhere/token")
    assert resolve().tokens.token_file == Path("/elsewhere/token")


def test_token_files_are_read_anew(tmp_path: Path) -> None:
    file = token_file(tmp_path / "token", "first")
    tokens = _tokens.BearerTokens(TokenSettings(kubernetes_files=(file,)))
    assert tokens.token_for(REMOTE) == "first"
    file.write_text("second")
    assert tokens.token_for(REMOTE) == "second"
    file.unlink()
    assert tokens.token_for(REMOTE) is None


@pytest.mark.parametrize(
    ("url", "in_pod", "warned"),
    [
        ("http://agentcube-router:8080", False, False),
        ("http://agentcube-router.agents.svc:8080", False, False),
        ("http://agentcube-router.agents.svc.cluster.local:8080", False, False),
        ("http://10.1.2.3:8080", False, False),
        ("http://[fd00::1]:8080", False, False),
        ("http://localhost:8080", False, False),
        ("https://agentcube.example", False, False),
        ("http://agentcube-router.agents:8080", True, False),
        ("http://agentcube-router.agents:8080", False, True),
        ("http://agentcube.example.org", True, True),
        ("http://8.8.8.8", False, True),
    ],
)
def test_tokens_that_others_may_read_on_the_way_are_warned_about_once(
    url: str,
    in_pod: bool,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if in_pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    else:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    tokens = _tokens.BearerTokens(TokenSettings(fixed="very-secret"))
    for _ in range(2):
        assert tokens.token_for(parse_url(url, "test")) == "very-secret"
    assert ["unencrypted" in record.getMessage() for record in caplog.records] == [True] * warned
    assert "very-secret" not in caplog.text


def test_an_empty_token_file_is_none(tmp_path: Path) -> None:
    assert bearer(TokenSettings(token_file=token_file(tmp_path / "token", " \n"))) is None


def test_a_token_that_others_can_read_is_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = token_file(tmp_path / "token", "very-secret", 0o640)
    tokens = _tokens.BearerTokens(TokenSettings(token_file=file))
    with caplog.at_level(logging.WARNING, "agentcube"):
        assert tokens.token_for(LOCAL) == "very-secret"
        assert tokens.token_for(LOCAL) == "very-secret"
    (record,) = caplog.records
    assert "chmod 600" in record.getMessage()
    assert "very-secret" not in record.getMessage()


def test_a_private_token_file_is_not_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bearer(TokenSettings(token_file=token_file(tmp_path / "token", "x")))
    assert caplog.records == []


@pytest.mark.parametrize("token", ["with blank", "line\nbreak", "ümlaut", "\x00"])
def test_malformed_tokens_are_refused_and_not_repeated(token: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(auth_token=token)
    assert token not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        bearer(TokenSettings(token_file=token_file(tmp_path / "token", token)))
    assert token not in str(caught.value)


def test_a_token_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="token file"):
        bearer(TokenSettings(token_file=tmp_path))


def test_tokens_are_not_shown() -> None:
    assert "very-secret" not in repr(resolve(auth_token="very-secret"))


# Proxies


def test_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _settings.proxy_for(REMOTE) is None
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert str(_settings.proxy_for(REMOTE)) == "http://proxy.example:3128"
    monkeypatch.setenv("no_proxy", "agentcube.example")
    assert _settings.proxy_for(REMOTE) is None


def test_no_proxy_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert _settings.proxy_for(LOCAL) is None
