"""What the caller and the environment say: the only module that reads environment variables."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from .exceptions import ConfigurationError

DEFAULT_NAME = "simple-codeinterpreter"
DEFAULT_NAMESPACE = "default"
DEFAULT_URL = "http://localhost:8080"
# A token for AgentCube alone, where the Pod asks Kubernetes for one, and the one that lies in
# nearly every Pod.
PROJECTED_TOKEN = Path("/var/run/secrets/agentcube/token")
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

_DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_DNS_LABEL)
_NAME = re.compile(rf"{_DNS_LABEL}(\.{_DNS_LABEL})*")
_CHECKPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_NAME = 253
_URL_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_LOOPBACK_V4 = re.compile(r"127(\.[0-9]{1,3}){3}")
_NEAR = re.compile(r"\.svc(\.|$)|\.(local|internal|localhost)$")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Endpoint:
    """A base URL, taken apart.

    ``prefix`` is its path without a trailing slash: ``""`` or ``"/some/where"``.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine by its very name."""
        return self.host in {"localhost", "::1"} or _LOOPBACK_V4.fullmatch(self.host) is not None

    @property
    def netloc(self) -> str:
        """Host and port as a Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.prefix}"


@dataclass(frozen=True)
class Timeouts:
    """How long to wait, in seconds.

    Attributes:
        connect: For a TCP (and TLS) connection, per address of the host.
        create: For a session to be created, paused, woken, forked or kept.
        control: For the answer to its deletion, to listings and to small writes.
        transfer: For the other side to make any progress during an upload or a download.
    """

    connect: float = 5.0
    create: float = 120.0
    control: float = 30.0
    transfer: float = 60.0

    def __post_init__(self) -> None:
        for name in ("connect", "create", "control", "transfer"):
            require_seconds(getattr(self, name), f"{name}_timeout")


@dataclass(frozen=True)
class Given:
    """What a session begins with besides its template; never shown.

    Attributes:
        env: Variables of all its commands.
        files: Contents, by path.
    """

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Settings:
    """All that a client needs to know, checked.

    Attributes:
        named: Whether somebody named the template. If not, it is that of the checkpoint, or
            of the session that the client is attached to.
        encrypt: Whether to encrypt as far as the sandbox where the server offers it.
    """

    name: str
    namespace: str
    ttl: int
    workload_manager: Endpoint
    router: Endpoint
    tokens: TokenSettings
    timeouts: Timeouts
    max_retries: int
    checkpoint: str | None = None
    named: bool = True
    given: Given = field(default_factory=Given)
    encrypt: bool = True


class TokenProvider(Protocol):
    """What can be the ``auth`` of a client: whatever gives tokens.

    If it has a method ``invalidate(token)`` too, that is told of a token that was refused, before
    the next one is asked for.
    """

    def get_token(self) -> str:
        """The bearer token to send now."""
        ...


@dataclass(frozen=True)
class TokenSettings:
    """Where the bearer token may come from, the first first.

    Attributes:
        provider: What gives tokens; never shown.
        fixed: The token itself, from the argument or the environment; never shown.
        token_file: The token that ``agentcube up`` leaves for programs on the same machine,
            or that somebody has named.
        is_named: Whether somebody has named ``token_file``. Then it may hold a token for
            another machine.
        kubernetes_files: The tokens that Kubernetes projects into Pods.
    """

    fixed: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    is_named: bool = False
    kubernetes_files: tuple[Path, ...] = ()
    provider: TokenProvider | None = field(default=None, repr=False)


def resolve(
    name: str | None,
    namespace: str | None,
    ttl: int,
    workload_manager_url: str | None,
    router_url: str | None,
    auth_token: str | None,
    timeouts: Timeouts,
    max_retries: int,
    checkpoint: str | None = None,
    auth: TokenProvider | None = None,
) -> Settings:
    """Put arguments, environment and defaults together.

    Raises:
        ConfigurationError: A value is malformed.
        TypeError: A value has the wrong type.
    """
    named = name is not None or namespace is not None
    name = DEFAULT_NAME if name is None else name
    namespace = DEFAULT_NAMESPACE if namespace is None else namespace
    check_name(name, namespace)
    check_ttl(ttl)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    if isinstance(max_retries, bool) or not isinstance(max_retries, int):
        raise TypeError(f"max_retries is a whole number, not {type(max_retries).__name__}")
    if max_retries < 0:
        raise ConfigurationError(f"max_retries is not negative, but it is {max_retries}")
    return Settings(
        name=name,
        namespace=namespace,
        ttl=ttl,
        workload_manager=_endpoint(
            "workload_manager_url",
            workload_manager_url,
            ("WORKLOAD_MANAGER_URL", "WORKLOADMANAGER_URL"),
        ),
        router=_endpoint("router_url", router_url, ("ROUTER_URL",)),
        tokens=_token_settings(auth_token, auth),
        timeouts=timeouts,
        max_retries=max_retries,
        checkpoint=checkpoint,
        named=named,
    )


def check_ttl(ttl: int) -> None:
    """Refuse what is not a whole number of seconds above zero."""
    if isinstance(ttl, bool) or not isinstance(ttl, int):
        raise TypeError(f"ttl is a whole number of seconds, not {type(ttl).__name__}")
    if ttl <= 0:
        raise ConfigurationError(f"ttl is a number of seconds above zero, not {ttl}")


def check_checkpoint(name: str) -> None:
    """Refuse what cannot be the name of a checkpoint."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a checkpoint is a string, not {type(name).__name__}")
    if not _CHECKPOINT.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a checkpoint: 1 to 128 letters, digits, '.', '_' "
            "and '-', beginning with a letter or digit"
        )


def check_name(name: str, namespace: str) -> None:
    """Refuse names that Kubernetes would refuse; they become parts of URLs."""
    if not isinstance(name, str) or not isinstance(namespace, str):
        raise TypeError("name and namespace are strings")
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"name {name!r} cannot be the name of a template: lower-case letters, digits, "
            "'-' and '.', beginning and ending with a letter or digit"
        )
    if not _NAMESPACE.fullmatch(namespace):
        raise ConfigurationError(
            f"namespace {namespace!r} cannot be a namespace: at most 63 lower-case letters, "
            "digits and '-', beginning and ending with a letter or digit"
        )


def require_seconds(value: float, name: str) -> None:
    """Refuse what is not a finite number of seconds above zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {type(value).__name__}")
    if not math.isfinite(value) or value <= 0:
        raise ConfigurationError(f"{name} is a finite number of seconds above zero, not {value}")


def parse_url(url: str, origin: str) -> Endpoint:
    """Take a base URL apart; ``origin`` names the setting in errors."""
    if not isinstance(url, str):
        raise TypeError(f"{origin} is a string, not {type(url).__name__}")
    if _URL_FORBIDDEN.search(url):
        raise ConfigurationError(f"{origin} holds blanks, control characters or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{origin} is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        # The URL is not repeated: it holds a password.
        raise ConfigurationError(f"{origin} holds a user name or password; use auth_token instead")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(
            f"{origin} {url!r} does not begin with http://host or https://host"
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(f"{origin} {url!r} has a query or a fragment")
    if not (url.isascii() and "%" not in parts.netloc):
        raise ConfigurationError(f"{origin} {url!r} is not plain ASCII; write the host in punycode")
    default = 443 if parts.scheme == "https" else 80
    return Endpoint(
        scheme=parts.scheme,
        host=parts.hostname.rstrip("."),
        port=default if port is None else port,
        prefix=parts.path.rstrip("/"),
    )


def check_token(token: str, origin: str) -> str:
    """Refuse a token that could not be a header value, without repeating it."""
    if not isinstance(token, str):
        raise TypeError(f"{origin} is a string, not {type(token).__name__}")
    if not _VISIBLE_ASCII.fullmatch(token):
        raise ConfigurationError(f"{origin} is not a token: it holds blanks or odd characters")
    return token


def is_near(endpoint: Endpoint) -> bool:
    """Whether what is sent to the endpoint stays, by its name, on this machine or network.

    So do the services of a cluster, which are reached over plain HTTP.
    """
    host = endpoint.host
    try:
        return ip_address(host).is_private
    except ValueError:
        pass
    if endpoint.is_loopback or "." not in host or _NEAR.search(host):
        return True
    # service.namespace, as Pods may write it
    return host.count(".") == 1 and "KUBERNETES_SERVICE_HOST" in os.environ


def proxy_for(endpoint: Endpoint) -> Endpoint | None:
    """The proxy that the environment names for the endpoint; never one for this machine."""
    if endpoint.is_loopback or not any(key.lower().endswith("_proxy") for key in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415

    url = getproxies().get(endpoint.scheme)
    if not url or proxy_bypass(f"{endpoint.host}:{endpoint.port}"):
        return None
    return parse_url(url if "://" in url else f"http://{url}", f"{endpoint.scheme}_proxy")


def _endpoint(argument: str, value: str | None, variables: tuple[str, ...]) -> Endpoint:
    if value is not None:
        return parse_url(value, argument)
    for variable in variables:
        from_env = os.environ.get(variable, "").strip()
        if from_env:
            return parse_url(from_env, f"environment variable {variable}")
    return parse_url(DEFAULT_URL, "default URL")


def _token_settings(auth_token: str | None, auth: TokenProvider | None) -> TokenSettings:
    if auth is not None:
        if not callable(getattr(auth, "get_token", None)):
            raise TypeError(f"auth has a method get_token(), which {type(auth).__name__} has not")
        return TokenSettings(provider=auth)
    if auth_token is not None:
        if not isinstance(auth_token, str):
            raise TypeError(f"auth_token is a string, not {type(auth_token).__name__}")
        return TokenSettings(fixed=check_token(auth_token, "auth_token"))
    for variable in ("API_TOKEN", "AGENTCUBE_TOKEN"):
        from_env = os.environ.get(variable, "").strip()
        if from_env:
            return TokenSettings(fixed=check_token(from_env, f"environment variable {variable}"))
    named = os.environ.get("AGENTCUBE_TOKEN_FILE", "")
    return TokenSettings(
        token_file=Path(named) if named else _local_token_file(),
        is_named=bool(named),
        kubernetes_files=(PROJECTED_TOKEN, SERVICE_ACCOUNT_TOKEN),
    )


def _local_token_file() -> Path | None:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if base and Path(base).is_absolute():  # the XDG specification says to ignore relative ones
        return Path(base) / "agentcube" / "token"
    try:
        return Path.home() / ".config" / "agentcube" / "token"
    except RuntimeError:  # no home directory can be found
        return None
