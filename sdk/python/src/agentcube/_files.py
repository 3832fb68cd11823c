"""The local side of transfers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ._forms import Progress
from ._http import Response, TransportError
from .exceptions import FileTransferError

_CHUNK = 256 * 1024
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


@contextmanager
def opened_for_upload(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    """The file and its size.

    Raises:
        OSError: It cannot be read, or is a directory.
        ValueError: It is a pipe or a device, whose size nobody knows.
    """
    # Before the opening, which would wait for a writer if this is a pipe.
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(f"{os.fspath(path)} is not a regular file")
    with Path(path).open("rb") as file:
        yield file, os.fstat(file.fileno()).st_size


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends well, and goes when not.

    It lies in the same folder until then, so that the change is one step. An existing
    file keeps its permissions; a symbolic link stays and what it points to is replaced.

    Raises:
        OSError: The folder cannot be written to, or ``path`` is a directory.
        ValueError: ``path`` is a pipe or a device.
    """
    target = Path(os.path.realpath(path))
    mode = None
    with suppress(FileNotFoundError):
        mode = target.stat().st_mode
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{os.fspath(path)} is a directory; name a file")
    if mode is not None and not stat.S_ISREG(mode):
        raise ValueError(f"{os.fspath(path)} is not a regular file")
    part = target.with_name(f".agentcube-{os.urandom(16).hex()}.part")
    # Not the tempfile module: its files are closed to others, whatever the umask says.
    descriptor = os.open(part, _CREATE, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        if mode is not None:
            part.chmod(stat.S_IMODE(mode))
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def receive(
    response: Response, target: BinaryIO, timeout_option: str, progress: Progress | None
) -> None:
    """Write the body of the answer to a download into a file.

    Raises:
        FileTransferError: It is not complete.
        Exception: Whatever ``progress`` raises.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity" or not response.is_delimited:
        raise FileTransferError("the server's answer does not show where the file ends")
    total = -1 if response.content_length is None else response.content_length
    done = 0
    buffer = memoryview(bytearray(_CHUNK))
    if progress is not None:
        progress(0, total)
    try:
        while count := response.readinto(buffer):
            target.write(buffer[:count])
            done += count
            if progress is not None:
                progress(done, total)
    except TransportError as error:
        reason = str(error)
        if error.kind == "timeout":
            reason = f"no progress in time; raise the option {timeout_option}="
        raise FileTransferError(f"download broke off after {done} bytes: {reason}") from error
    if total not in (-1, done):
        raise FileTransferError(f"download broke off after {done} of {total} bytes")
