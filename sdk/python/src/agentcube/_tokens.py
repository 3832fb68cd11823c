"""Who the caller is: bearer tokens, from wherever they come."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic as _now
from typing import Any
from urllib.parse import urlencode, urlsplit

from . import _responses
from ._headers import checked_headers
from ._http import Transport, TransportError
from ._requests import Request
from ._settings import Endpoint, TokenSettings, check_token, is_near, parse_url, require_seconds
from .exceptions import APIConnectionError, ConfigurationError, InvalidResponseError

logger = logging.getLogger("agentcube")

_MAX_TOKEN_FILE = 64 * 1024
_MAX_TOKEN_ANSWER = 1024 * 1024
# Tokens of Kubernetes and of identity providers (JWTs), and those of `agentcube token create`. Any
# other in a file may be the key to this machine.
_OF_CALLERS = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+|act_[\w-]+", re.ASCII)
_LIFE = 3600.0  # seconds that a token lives whose server does not say
_EARLY = 30.0  # seconds before its end that a token is replaced


class BearerTokens:
    """Finds the token for a server.

    Files are read anew for each request: Kubernetes replaces its tokens before they
    expire, and ``agentcube up`` may have been set up afresh.
    """

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._warned: set[str] = set()

    def token_for(self, endpoint: Endpoint) -> str | None:
        """The token to send to the endpoint, or None."""
        token = self._find(endpoint)
        if token is not None and endpoint.scheme == "http" and not is_near(endpoint):
            self._warn_once(
                str(endpoint),
                "a token is sent to %s unencrypted, over a network that others may read; use https",
                endpoint,
            )
        return token

    def instead_of(self, refused: str, endpoint: Endpoint) -> str | None:
        """What to try once after a token was refused: one that has taken its place."""
        invalidate = getattr(self._settings.provider, "invalidate", None)
        if invalidate is not None:
            invalidate(refused)
        token = self.token_for(endpoint)
        return None if token == refused else token

    def _find(self, endpoint: Endpoint) -> str | None:
        settings = self._settings
        if settings.provider is not None:
            return check_token(settings.provider.get_token(), "what get_token() of auth returns")
        if settings.fixed is not None:
            return settings.fixed
        # For this machine the local token goes before those of Kubernetes: they lie in nearly
        # every Pod, the local one only where AgentCube was started.
        if settings.token_file is not None and (endpoint.is_loopback or settings.is_named):
            token = self._read(settings.token_file, named=settings.is_named)
            if token and (endpoint.is_loopback or _OF_CALLERS.fullmatch(token)):
                return token
        for path in settings.kubernetes_files:
            if token := self._read(path, named=True):
                return token
        return None

    def _read(self, path: Path, *, named: bool) -> str | None:
        try:
            with path.open("rb") as file:
                info = os.fstat(file.fileno())
                if not stat.S_ISREG(info.st_mode):
                    raise ConfigurationError(f"token file {path} is not a regular file")
                raw = file.read(_MAX_TOKEN_FILE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(f"cannot read token file {path}: {error.strerror}") from error
        text = raw.decode("ascii", errors="replace").strip()
        token = check_token(text, f"content of token file {path}") if text else None
        # Kubernetes lets the group of the Pod read its tokens, and others may be meant to.
        private = token is not None and not (named and _OF_CALLERS.fullmatch(token))
        if private and os.name == "posix" and info.st_mode & 0o077:
            self._warn_once(
                str(path),
                "other users of this machine can read the token file %s; run: chmod 600 %s",
                path,
                path,
            )
        return token

    def _warn_once(self, what: str, text: str, *values: object) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(text, *values)


class TokenAuth:
    """A token that does not change, as the ``auth`` of a client."""

    def __init__(self, token: str) -> None:
        if not isinstance(token, str):
            raise TypeError(f"token is a string, not {type(token).__name__}")
        self._token = check_token(token, "token")

    def __repr__(self) -> str:
        return "<TokenAuth>"

    def get_token(self) -> str:
        """The token."""
        return self._token


class ServiceAccountAuth:
    """Tokens of an identity provider, such as Keycloak, as the ``auth`` of clients.

    They are asked for with OAuth 2.0's grant "client credentials", for the account of a program,
    and used until shortly before they end, or until AgentCube refuses them. One object can
    serve several clients, and threads.

    Args:
        token_url: The provider's token endpoint.
        client_id: Who asks.
        client_secret: How it shows that. It is sent to the token endpoint and nowhere else.
        scope: What to ask for. Default: what the provider gives anyway.
        headers: More headers of the requests for tokens.
        timeout: Seconds to wait for a connection, and for an answer.

    Raises:
        ConfigurationError: A setting is malformed.
        TypeError: A setting has the wrong type.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        scope: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: tuple[float, float] = (5, 30),
    ) -> None:
        fields = {"client_id": client_id, "client_secret": client_secret}
        if scope is not None:
            fields["scope"] = scope
        for name, value in fields.items():
            if not isinstance(value, str):
                raise TypeError(f"{name} is a string, not {type(value).__name__}")
        connect, read = timeout
        require_seconds(connect, "timeout[0]")
        require_seconds(read, "timeout[1]")
        self._endpoint = parse_url(token_url, "token_url")
        self._target = urlsplit(token_url).path or "/"
        self._fields = {"grant_type": "client_credentials", **fields}
        self._headers = checked_headers(headers)
        self._read_timeout = read
        self._transport = Transport(connect)
        self._lock = threading.Lock()
        self._token: str | None = None
        self._good_until = 0.0

    def __repr__(self) -> str:
        return f"<ServiceAccountAuth {self._fields['client_id']} at {self._endpoint}>"

    def __reduce__(self) -> str:
        raise TypeError("a ServiceAccountAuth cannot be pickled: it holds a secret")

    def get_token(self) -> str:
        """A token that is valid for some time yet.

        Raises:
            APIConnectionError: The provider did not answer.
            APIStatusError: It refused.
            InvalidResponseError: Its answer is not one of a token endpoint.
        """
        with self._lock:
            if self._token is None or _now() >= self._good_until:
                self._token, life = self._ask()
                self._good_until = _now() + max(life - _EARLY, life / 2)
            return self._token

    def invalidate(self, token: str) -> None:
        """Forget a token that was refused, so that the next call asks for another one."""
        with self._lock:
            if self._token == token:
                self._token = None

    def _ask(self) -> tuple[str, float]:
        request = Request(
            method="POST",
            plane="control",
            endpoint=self._endpoint,
            target=self._target,
            read_timeout=self._read_timeout,
            timeout_option="timeout",
            headers={"Content-Type": "application/x-www-form-urlencoded", **self._headers},
            body=urlencode(self._fields).encode("ascii"),
        )
        try:
            with self._transport.send(request, None) as response:
                body = response.read(_MAX_TOKEN_ANSWER)
        except TransportError as error:
            raise APIConnectionError(
                f"no token from {self._endpoint}{self._target}: {error}; check token_url"
            ) from error
        finally:
            self._transport.close()  # it will not be needed for long
        if response.status != 200:  # noqa: PLR2004
            raise _responses.status_error(request, response.status, response.headers, body)
        return self._parsed(body)

    def _parsed(self, body: bytes) -> tuple[str, float]:
        fields: Any = None
        with suppress(ValueError, RecursionError):
            fields = json.loads(body)
        token = fields.get("access_token") if isinstance(fields, dict) else None
        if not isinstance(token, str):
            raise InvalidResponseError(
                f"{self._endpoint}{self._target} does not answer like a token endpoint: "
                "there is no access_token; check token_url"
            )
        life = fields.get("expires_in", _LIFE)
        if isinstance(life, bool) or not isinstance(life, (int, float)) or not life > 0:
            life = _LIFE
        return check_token(token, "access_token of the provider"), float(life)
