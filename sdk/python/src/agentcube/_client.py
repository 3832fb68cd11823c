"""The client: commands, code and files in a session."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from . import _code, _files, _requests, _responses
from ._auth import SessionKey
from ._calls import log_verbosely
from ._forms import Multipart, Progress
from ._owner import SessionOwner
from ._results import CommandResult, FileInfo
from ._session import Session
from ._settings import Timeouts, TokenProvider, resolve
from .exceptions import AgentCubeError, ConfigurationError

logger = logging.getLogger("agentcube")

_CLEAN_UP_TIMEOUT = 10.0


class CodeInterpreterClient(SessionOwner):
    """A computer of its own for code you do not want to run on yours.

    The session begins at its first use: on entering a ``with`` block, or with the first
    call. A client that was made and never used owns nothing. It ends when the block is
    left, or with :meth:`stop`. A session that was made elsewhere, and that the client is
    attached to by ``session_id``, goes on when the block is left.

    Only this object can run code in its session: it makes a key, keeps the private half
    and signs every request with it, unless you share the key, see :meth:`export_key`. It
    may be used from several threads.

    Args:
        name: The template (``CodeInterpreter``) to make the session from. Default:
            ``simple-codeinterpreter``; with ``session_id`` or ``checkpoint``, theirs.
        namespace: The namespace of the template. Default: ``default``, or as for ``name``.
        ttl: The longest life of the session, in seconds. The template may set a shorter one.
        workload_manager_url: The control plane. Default: environment variable
            ``WORKLOAD_MANAGER_URL`` or ``WORKLOADMANAGER_URL``, else ``http://localhost:8080``.
        router_url: The data plane. Default: ``ROUTER_URL``, else ``http://localhost:8080``.
        auth_token: The bearer token for the control plane. Default: ``API_TOKEN``,
            ``AGENTCUBE_TOKEN``, the token that ``agentcube up`` left on this machine (only
            for an address of this machine), one that Kubernetes has made for this Pod.
        verbose: Log what the client does to the logger ``agentcube``, and to stderr if the
            program has set up no logging. Keys, tokens, code and output are never logged.
        session_id: Use this session instead of a new one. Its template is asked for at the
            control plane, unless ``name`` or ``namespace`` is given. Without ``private_key``
            it is taken for one that was made without a key.
        private_key: The PEM text of the RSA key (2048 bits or more) to use for the session,
            as :meth:`export_key` gives it. Default: a new one.
        checkpoint: Begin from the memory and files that :meth:`checkpoint` kept under this
            name, instead of a template.
        env: Variables of all commands of the session, over those of the template and, with
            ``checkpoint``, over those of the session it was made of. The ``env`` of a call
            comes over them. At most 128, with 64 KiB in all.
        files: What the workspace holds when the session begins, by path; text as UTF-8.
            At most 64 files, with 1 MiB in all. If one cannot be written, the session does not
            begin.
        connect_timeout: Seconds to wait for a connection.
        create_timeout: Seconds to wait for a session to be created, paused, resumed, forked
            or kept.
        control_timeout: Seconds to wait for deletions, listings and small writes.
        transfer_timeout: Seconds that an upload or download may make no progress.
        max_retries: How often to try again where that cannot do anything twice: a refused
            connection, and the creation of the session when the server is busy.
        encrypt: Whether what is sent to the session is encrypted from here to the sandbox
            (TLS 1.3 that nobody in between can open), where the server offers it. Requests
            are signed in any case.
        auth: Gives the bearer token, before each request; any object with a method
            ``get_token()``. It goes before ``auth_token``.

    Raises:
        ConfigurationError: A setting is malformed.
        TypeError: A setting has the wrong type.
    """

    def __init__(
        self,
        name: str | None = None,
        namespace: str | None = None,
        ttl: int = 3600,
        workload_manager_url: str | None = None,
        router_url: str | None = None,
        auth_token: str | None = None,
        verbose: bool = False,
        *,
        session_id: str | None = None,
        private_key: str | bytes | None = None,
        checkpoint: str | None = None,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | None = None,
        connect_timeout: float = 5.0,
        create_timeout: float = 120.0,
        control_timeout: float = 30.0,
        transfer_timeout: float = 60.0,
        max_retries: int = 3,
        encrypt: bool = True,
        auth: TokenProvider | None = None,
    ) -> None:
        if session_id is not None and not isinstance(session_id, str):
            raise TypeError(f"session_id is a string, not {type(session_id).__name__}")
        if session_id is not None and not re.fullmatch(r"[\x21-\x7e]+", session_id):
            raise ConfigurationError("session_id is empty, or holds blanks or odd characters")
        if session_id is not None and checkpoint is not None:
            raise ConfigurationError("session_id and checkpoint exclude each other")
        if session_id is not None and (env or files):
            raise ConfigurationError("session_id excludes env and files, which a new session gets")
        given = _requests.given(env, files)
        timeouts = Timeouts(connect_timeout, create_timeout, control_timeout, transfer_timeout)
        settings = resolve(
            name,
            namespace,
            ttl,
            workload_manager_url,
            router_url,
            auth_token,
            timeouts,
            max_retries,
            checkpoint,
            auth,
        )
        if not isinstance(encrypt, bool):
            raise TypeError(f"encrypt is True or False, not {type(encrypt).__name__}")
        settings = replace(settings, given=given, encrypt=encrypt)
        if verbose:
            log_verbosely()
        attached = session_id is not None
        # A session that was made without a key has none now: the Router signs for it.
        key = None if attached and private_key is None else SessionKey(private_key)
        self._own(Session(settings, session_id, key, attached=attached))

    def execute_command(
        self,
        command: str | Sequence[str],
        timeout: float = 30,
        *,
        working_dir: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command and return its output.

        A string is a shell command: it runs as ``sh -c``, with pipes, variables and ``&&``.
        A list is run as it is, without a shell: use one for parts that you did not write.

        Args:
            command: What to run.
            timeout: Seconds that it may take; then it and its children are killed.
            working_dir: Where to run it. Default: the workspace.
            env: Variables to add to its environment.

        Raises:
            CommandExecutionError: It ended with a non-zero exit code.
            CommandTimeoutError: It was killed at its time-out.
            SessionEndedError: The session has ended.
            AgentCubeError: Any other failure.
        """
        result, request_argv = self._execute(command, timeout, working_dir, env)
        return _responses.output(result, command, request_argv)

    def execute_command_result(
        self,
        command: str | Sequence[str],
        timeout: float = 30,
        *,
        working_dir: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command and return how it ended, whatever the exit code.

        Takes the arguments of :meth:`execute_command`, and raises the same exceptions
        but for the first two.
        """
        return self._execute(command, timeout, working_dir, env)[0]

    def run_code(self, language: str, code: str, timeout: float = 30) -> str:
        """Run code in a new interpreter and return its output.

        Indentation that all lines share is taken away, so that code can stand in a
        triple-quoted string at any depth. The code is put into a file in the workspace,
        from which it can import modules that lie there; the file is removed afterwards.

        Args:
            language: ``"python"`` (``"python3"``, ``"py"``), ``"bash"`` or ``"sh"``.
            code: The source text.
            timeout: Seconds that it may take; then it and its children are killed.

        Raises:
            UnsupportedLanguageError: The language is not one of these.
            CommandExecutionError: The code failed; ``stderr`` has its traceback.
            CommandTimeoutError: It was killed at its time-out.
            AgentCubeError: Any other failure.
        """
        lang = _code.language(language)
        if not isinstance(code, str):
            raise TypeError(f"code is a string, not {type(code).__name__}")
        _code.duration(timeout)  # refused before anything is written
        script = _code.script_name(lang)
        self.write_file(_code.dedent(code), script)
        command = [lang.interpreter, script]
        result, _ = self._execute(command, timeout, None, None, script)
        if not result.get("removed"):  # by an older server
            self._remove(script)
        return _responses.output(result, command, command)

    def write_file(self, content: str | bytes, remote_path: str) -> None:
        """Write a file in the sandbox; text as UTF-8. Missing folders are made.

        Args:
            content: All that the file is to hold.
            remote_path: Where; relative paths begin at the workspace.

        Raises:
            AgentCubeError: It could not be written.
        """
        path = _requests.remote_path(remote_path)
        content = _requests.file_content(content, "content")
        if len(content) > _requests.MAX_JSON_CONTENT:
            self._upload(path, path, io.BytesIO(content), len(content), None)
            return
        session_id = self._session.ensure()
        self._session.call(_requests.write_file(self._session.settings, session_id, path, content))

    def upload_file(
        self,
        local_path: str | os.PathLike[str],
        remote_path: str,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Copy a local file into the sandbox, piece by piece. Missing folders are made there.

        Args:
            local_path: The file to read.
            remote_path: Where to; relative paths begin at the workspace.
            progress: Called with the bytes sent and the bytes in all, after each piece. An
                exception it raises ends the transfer.

        Raises:
            OSError: The local file cannot be read.
            FileTransferError: It changed while it was sent.
            AgentCubeError: Any other failure.
        """
        path = _requests.remote_path(remote_path)
        with _files.opened_for_upload(local_path) as (source, size):
            self._upload(path, Path(local_path).name, source, size, progress)

    def download_file(
        self,
        remote_path: str,
        local_path: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
    ) -> None:
        """Copy a file out of the sandbox, piece by piece.

        ``local_path`` changes in one step, when all has arrived: a failure leaves what was
        there before.

        Args:
            remote_path: The file to read; relative paths begin at the workspace.
            local_path: The file to write; its folder must exist.
            progress: Called with the bytes received and the bytes in all (-1 if the server
                did not say), after each piece. An exception it raises ends the transfer.

        Raises:
            NotFoundError: There is no such file in the sandbox.
            OSError: The local file cannot be written.
            FileTransferError: The connection was lost half-way.
            AgentCubeError: Any other failure.
        """
        path = _requests.remote_path(remote_path)
        with _files.replacing(local_path) as target:
            session_id = self._session.ensure()
            request = _requests.download_file(self._session.settings, session_id, path)
            with self._session.open(request) as response:
                _files.receive(response, target, request.timeout_option, progress)

    def list_files(self, path: str = ".") -> list[FileInfo]:
        """List a directory of the sandbox, sorted by name.

        A server may cut a very long list; the client then logs a warning.

        Args:
            path: The directory; relative paths begin at the workspace, which is the default.

        Raises:
            NotFoundError: There is no such directory.
            AgentCubeError: Any other failure.
        """
        path = _requests.remote_path(path, "path")
        session_id = self._session.ensure()
        request = _requests.list_files(self._session.settings, session_id, path)
        return _responses.file_list(request, self._session.call(request))

    def _execute(
        self,
        command: str | Sequence[str],
        timeout: float,
        working_dir: str | None,
        env: Mapping[str, str] | None,
        script: str | None = None,
    ) -> tuple[CommandResult, list[str]]:
        argv = _code.argv(command)
        _code.duration(timeout)  # refused before a session is made for it
        session_id = self._session.ensure()
        request = _requests.execute(
            self._session.settings, session_id, argv, timeout, working_dir, env, script
        )
        return _responses.command_result(request, self._session.call(request)), argv

    def _upload(
        self, path: str, filename: str, source: BinaryIO, size: int, progress: Progress | None
    ) -> None:
        session_id = self._session.ensure()
        body = Multipart(path, filename, source, size, progress)
        self._session.call(_requests.upload_file(self._session.settings, session_id, body))

    def _remove(self, script: str) -> None:
        try:
            self._execute(["rm", "-f", "--", script], _CLEAN_UP_TIMEOUT, None, None)
        except AgentCubeError as error:
            logger.debug("script was not removed: %s", error)
