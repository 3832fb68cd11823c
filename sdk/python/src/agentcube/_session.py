"""A session's life: created at its first use, deleted once; and how its requests are signed."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from . import _audit, _requests, _responses
from ._audit import AuditRecord
from ._auth import FormSigner, SessionKey, agreement_claims, request_claims
from ._calls import Calls
from ._forms import Multipart
from ._http import Transport, TransportError
from ._requests import Request
from ._responses import Created, Described
from ._results import Checkpoint
from ._secure import Channel, Secure
from ._settings import Given, Settings, proxy_for
from .exceptions import (
    AgentCubeError,
    APIStatusError,
    ClientClosedError,
    ConfigurationError,
    NotFoundError,
    NotSupportedError,
)

logger = logging.getLogger("agentcube")

_FORGOTTEN_TIMEOUT = 2.0
_END_KNOWN = 3.0  # seconds that the server may take to know that a sandbox has ended
_BROKEN = ("connect", "lost")
_NO_SUCH_PATH = (404, 405)
_SIGNATURE = "X-Agentcube-Session-Signature"


class Session(Calls):
    """The session of one client. Safe to use from several threads."""

    def __init__(
        self,
        settings: Settings,
        session_id: str | None,
        key: SessionKey | None,
        *,
        attached: bool = False,
        secure: Secure | None = None,
    ) -> None:
        """Without a key the Router signs; attached: the session was made elsewhere.

        Where the server says how, connections are encrypted as far as the sandbox.
        """
        super().__init__(settings)
        self._attached = attached
        self._id = session_id
        self._key = key
        self._use(secure)
        # Reentrant, for signal handlers that stop the client.
        self._lock = threading.RLock()
        self._closed = False
        self._deleted = False
        self._pid = os.getpid()

    @property
    def known_id(self) -> str | None:
        """The id, if the session was created already."""
        return self._id

    @property
    def is_closed(self) -> bool:
        """Whether it was ended or let go of."""
        return self._closed

    @property
    def is_attached(self) -> bool:
        """Whether the session was made elsewhere, and is not this client's to end."""
        return self._attached

    @property
    def is_forked(self) -> bool:
        """Whether this process is a copy of the one that the session belongs to."""
        return self._pid != os.getpid()

    def ensure(self) -> str:
        """The id of the session, which is created if it was not before.

        Of a session that was made elsewhere, the template is known afterwards.
        """
        with self._lock:
            self._check_open()
            if self._id is None:
                self._id = self._begin()
            elif self._attached and not self.settings.named:
                self._look_up(self._id)
            return self._id

    def export_key(self) -> str:
        """The private key as PEM text."""
        if self._key is None:
            raise ConfigurationError(
                f"there is no key to export: the client was attached to session {self._id} "
                "without private_key="
            )
        return self._key.private_pem()

    def end(self) -> None:
        """Delete the session. Does nothing when there is none, or it was deleted before."""
        with self._lock:
            self._closed = True
            try:
                if self._id is not None and not self._deleted:
                    self._delete(self._id)
                self._deleted = True
            finally:
                self._transport.close()

    def let_go(self) -> None:
        """Close the connections and leave the session running."""
        with self._lock:
            self._closed = self._deleted = True
            self._transport.close()

    def abandon(self) -> None:
        """What happens to a client that nobody stopped; never raises on its own account."""
        self._transport.close()
        if self._closed or self._attached or self._id is None or self.is_forked:
            return
        short = replace(self.settings.timeouts, control=_FORGOTTEN_TIMEOUT)
        self.settings = replace(self.settings, timeouts=short, max_retries=0)
        self._transport = Transport(_FORGOTTEN_TIMEOUT)
        try:
            self.end()
        except AgentCubeError as error:
            logger.warning("forgotten session was not deleted id=%s: %s", self._id, error)
        warnings.warn(
            f"AgentCube session {self._id} was never stopped; use 'with' or call stop()",
            ResourceWarning,
            stacklevel=2,
        )

    def change(self, verb: Literal["pause", "resume"]) -> None:
        """Pause or resume the session, whichever it is now."""
        request = _requests.change_session(self.settings, self.ensure(), verb)
        self._patiently(lambda: self._control(request))

    def fork(self, count: int, ttl: int) -> list[Session]:
        """New sessions that begin where this one is, with keys of their own if it has one."""
        session_id = self.ensure()
        keys: list[SessionKey | None] = [None] * count
        if self._key is not None:
            keys = [SessionKey() for _ in range(count)]  # all made at the same time
        request = _requests.fork_session(
            self.settings,
            session_id,
            count,
            ttl,
            [key.public_key_field() for key in keys if key is not None],
        )
        body = self._patiently(lambda: self._once(request))
        made = _responses.forked(request, body, count)
        settings = replace(self.settings, ttl=ttl, checkpoint=None)
        return [
            Session(settings, created.id, key, secure=created.secure)
            for created, key in zip(made, keys, strict=True)
        ]

    def checkpoint(self, name: str) -> Checkpoint:
        """Keep the state of the session under a name."""
        request = _requests.checkpoint_session(self.settings, self.ensure(), name)
        return _responses.checkpoint(request, self._patiently(lambda: self._once(request)))

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints of the caller; needs no session."""
        self._check_open()
        request = _requests.list_checkpoints(self.settings)
        return _responses.checkpoint_list(request, self._control(request))

    def delete_checkpoint(self, name: str) -> None:
        """Remove a checkpoint; needs no session."""
        self._check_open()
        self._once(_requests.delete_checkpoint(self.settings, name))

    def audit_record(self, after: int) -> AuditRecord:
        """The record that the agent in the sandbox keeps of this session."""
        session_id = self.ensure()
        if self._channel is None:
            raise NotSupportedError("the session is not reached encrypted: it keeps no record")
        body = self.call(_requests.audit_record(self.settings, session_id, after))
        return _audit.parse(
            body.decode("utf-8", "replace"), self._channel.secure.certificate, session_id
        )

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("the client was stopped; make a new one")

    def _check_given(self, created: Created) -> None:
        given = self.settings.given
        if (created.variables, created.files) == (len(given.env), len(given.files)):
            self.settings = replace(self.settings, given=Given())  # nobody needs it any more
            return
        # Servers ignore fields that they do not know.
        with suppress(AgentCubeError):
            self._delete(created.id)
        raise NotSupportedError("the server is too old to take env and files")

    def _begin(self) -> str:
        created = self._create()
        logger.debug("session created id=%s", created.id)
        if self.is_closed:  # by a signal handler, meanwhile
            self._delete(created.id)
            raise ClientClosedError("the client was stopped while its session began")
        self._check_given(created)
        self._use(created.secure)
        if self.settings.checkpoint is not None:
            self._take_template(created.namespace, created.name)
        return created.id

    def _look_up(self, session_id: str) -> None:
        try:
            described = self._described(session_id)
            self._take_template(described.namespace, described.name)
            self._use(described.secure)
        except APIStatusError as error:
            if error.status not in _NO_SUCH_PATH or error.code is not None:
                raise
            self._take_template(None, None)  # an older server, which cannot say

    def _described(self, session_id: str) -> Described:
        request = _requests.describe_session(self.settings, session_id)
        return _responses.described(request, self._control(request))

    def _use(self, secure: Secure | None) -> None:
        """Encrypt from now on, if the session can be reached so."""
        router = self.settings.router
        if secure is None or self._key is None or not self.settings.encrypt:
            return
        if proxy_for(router) is None:
            self._channel = Channel(secure, self._key)

    def _broken(self, request: Request, error: TransportError, began: float) -> bool:
        """Find out why an encrypted connection broke: the Router cannot say so on it.

        Returns whether the session was woken, and the request can be made again.

        Raises:
            APIStatusError: What has become of the session, or why it cannot be woken.
        """
        if self._channel is None or request.plane != "data" or error.kind not in _BROKEN:
            return False
        refused = error.kind == "connect"
        deadline = time.monotonic() + _END_KNOWN
        while True:
            try:
                described = self._described(request.session_id)
            except NotFoundError:
                raise
            except AgentCubeError:  # who may not ask hears of the connection
                return False
            if refused and described.state == "paused":
                self.change("resume")
                return True
            _responses.check_became(request, described, began, str(error))
            if refused or time.monotonic() > deadline:
                return False
            time.sleep(_END_KNOWN / 20)

    def _take_template(self, namespace: str | None, name: str | None) -> None:
        # Requests to the session name its template.
        self.settings = replace(
            self.settings,
            namespace=namespace or self.settings.namespace,
            name=name or self.settings.name,
            named=True,
        )

    def _create(self) -> Created:
        public_key = self._key.public_key_field() if self._key is not None else None
        # The same key for all attempts: the server makes one session, whatever got lost.
        request = _requests.create_session(self.settings, public_key, os.urandom(16).hex())
        return self._patiently(lambda: _responses.created(request, self._control(request)))

    def _agreed(self, request: Request) -> Request:
        if request.agreed_path is None or self._key is None or self._id is None:
            return request
        claims = agreement_claims(
            self._id, request.method, request.agreed_path, request.body_sha256
        )
        return replace(request, headers={**request.headers, _SIGNATURE: self._key.sign(claims)})

    def _signed(self, request: Request) -> tuple[Request, str | None]:
        """The request and the token for one attempt: a signature is good for one alone."""
        request = self._agreed(request)
        if request.plane != "data" or self._key is None:
            return super()._signed(request)
        claims = request_claims(
            request.session_id, request.method, request.inside, request.body_sha256
        )
        if isinstance(request.body, Multipart):
            signer = FormSigner(self._key, claims, request.body.path, request.body.mode)
            request = replace(request, body=request.body.signed(signer.length, signer.sign))
        return request, self._key.sign(claims)

    def _renewed(self, request: Request, refused: str) -> str | None:
        if request.plane == "data" and self._key is not None:
            return None  # it is the session's key that signs
        return super()._renewed(request, refused)
