"""Forms with a file, which is read, and hashed, while it is sent."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from .exceptions import FileTransferError

Progress = Callable[[int, int], object]

FILE_MODE = "0644"
_CHUNK = 256 * 1024


class Multipart:
    """A multipart body: path and mode, the content of a file, and perhaps a signature.

    Attributes:
        path: What the form's field of that name says.
        mode: Likewise.
        content_type: The value of the header.
        content_length: Bytes of the whole body.
        sign: Makes the signature from the hash of the file; None where there is to be none.
    """

    def __init__(
        self, path: str, filename: str, source: BinaryIO, size: int, progress: Progress | None
    ) -> None:
        self.path = path
        self.mode = FILE_MODE
        boundary = os.urandom(16).hex()
        # As browsers do it; the server takes the name from the field "path" anyway.
        safe = filename.translate({0x22: "%22", 0x0D: "%0D", 0x0A: "%0A"})
        head = _field(boundary, "path", path) + "\r\n" + _field(boundary, "mode", self.mode)
        head += (
            f"\r\n--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{safe}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        self._head = head.encode("utf-8", "surrogateescape")
        self._tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        self._before_signature = ("\r\n" + _field(boundary, "signature", "")).encode("ascii")
        self.sign: Callable[[str], str] | None = None
        self._source = source
        self._size = size
        self._progress = progress
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.content_length = len(self._head) + size + len(self._tail)

    def signed(self, length: int, sign: Callable[[str], str]) -> Multipart:
        """The same form, ending with a signature.

        Args:
            length: Bytes of the signature, which have to be known before there is one.
            sign: Makes it from the lower-case hex SHA-256 of the file, which is computed as
                the file is sent: it is read only once.
        """
        form = copy.copy(self)
        form.sign = sign
        form.content_length += len(self._before_signature) + length
        return form

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        digest = None if self.sign is None else hashlib.sha256()
        done = 0
        if self._progress is not None:
            self._progress(0, self._size)
        while done < self._size:
            chunk = self._source.read(min(_CHUNK, self._size - done))
            if not chunk:
                raise FileTransferError(
                    f"the file became shorter while it was sent: {done} of {self._size} bytes"
                )
            yield chunk
            if digest is not None:
                digest.update(chunk)  # while the network is busy with it
            done += len(chunk)
            if self._progress is not None:
                self._progress(done, self._size)
        if digest is None or self.sign is None:
            yield self._tail
        else:
            signature = self.sign(digest.hexdigest()).encode("ascii")
            yield self._before_signature + signature + self._tail


def _field(boundary: str, name: str, value: str) -> str:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'
