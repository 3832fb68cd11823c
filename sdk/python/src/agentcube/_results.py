"""What calls return. Dictionaries with names: old clients read keys, new code attributes."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import Any

_TIMED_OUT = re.compile(r"Command timed out after \S+ seconds?\W*\Z", re.IGNORECASE)
_FRACTION = re.compile(r"\.(\d{1,6})\d*")
_EXIT_TIMED_OUT = 124


class CommandResult(dict[str, Any]):
    """How a command ended. A dictionary of what the server sent, with typed attributes."""

    @property
    def exit_code(self) -> int:
        """The exit code: 0 is success, 124 a time-out, -1 the end by a signal."""
        return int(self["exit_code"])

    @property
    def stdout(self) -> str:
        """The output; bytes that are not UTF-8 appear as U+FFFD, see :attr:`stdout_raw`."""
        return str(self["stdout"])

    @property
    def stderr(self) -> str:
        """The error output, like :attr:`stdout`."""
        return str(self["stderr"])

    @property
    def stdout_raw(self) -> bytes:
        """The output as the command wrote it, where the server sent it so."""
        return self._raw("stdout")

    @property
    def stderr_raw(self) -> bytes:
        """The error output as the command wrote it, where the server sent it so."""
        return self._raw("stderr")

    @property
    def truncated(self) -> bool:
        """Whether the server cut the output or the error output at its limit."""
        return bool(self.get("stdout_truncated")) or bool(self.get("stderr_truncated"))

    @property
    def start_error(self) -> str:
        """Why the command could not be started: not_found, not_executable or other.

        Empty when it was started, and when the server did not say.
        """
        return str(self.get("start_error") or "")

    @property
    def duration(self) -> float:
        """How long the command ran, in seconds; 0.0 when the server did not say."""
        return float(self.get("duration") or 0.0)

    @property
    def timed_out(self) -> bool:
        """Whether the command was stopped at its time-out (and did not itself exit 124)."""
        return self.exit_code == _EXIT_TIMED_OUT and bool(_TIMED_OUT.search(self.stderr))

    def _raw(self, name: str) -> bytes:
        encoded = self.get(f"{name}_base64")
        if isinstance(encoded, str):
            return base64.b64decode(encoded)
        return str(self[name]).encode("utf-8", "surrogatepass")


class FileInfo(dict[str, Any]):
    """One entry of a directory. A dictionary of what the server sent, with typed attributes."""

    @property
    def name(self) -> str:
        """The name within the directory."""
        return str(self["name"])

    @property
    def size(self) -> int:
        """The size in bytes."""
        return int(self["size"])

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory; a symbolic link to one is not."""
        return bool(self["is_dir"])

    @property
    def mode(self) -> str:
        """Type and permissions as ``ls -l`` writes them; empty when the server did not say."""
        return str(self.get("mode") or "")

    @property
    def modified(self) -> datetime | None:
        """The time of the last change; None when the server did not say."""
        return _time(self.get("modified"))


class Checkpoint(dict[str, Any]):
    """The kept state of a session, memory and files.

    A dictionary of what the server sent, with typed attributes.
    """

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self["name"])

    @property
    def size(self) -> int:
        """The room it takes on the server's disk, in bytes; 0 when the server did not say."""
        return int(self.get("sizeBytes") or 0)

    @property
    def created(self) -> datetime | None:
        """When it was made; None when the server did not say."""
        return _time(self.get("createdAt"))

    @property
    def expires(self) -> datetime | None:
        """When it is removed, unless it is used before; None when the server did not say."""
        return _time(self.get("expiresAt"))

    @property
    def session_id(self) -> str:
        """The session that it was made of; empty when the server did not say."""
        return str(self.get("sessionId") or "")


def _time(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    # Python before 3.11 reads neither "Z" nor fractions of other than 3 or 6 digits.
    text = _FRACTION.sub(lambda m: "." + m[1].ljust(6, "0"), text.replace("Z", "+00:00"))
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
