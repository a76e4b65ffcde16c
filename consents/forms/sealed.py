"""Files of a form while they are read: what is too large for memory lies on the disk sealed, under a key that only this request
has. They name people by their CI, which is nowhere at rest in clear (T24)."""

import io
import secrets
import tempfile
from typing import IO

from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, StopUpload

from providers import vault

LARGEST = 50 * 1024 * 1024  # bytes of a request; more goes by the API, in pieces
FIELDS = 65_536  # bytes for what else a form says


class SealedUploadHandler(FileUploadHandler):
    """Takes what the handler before it leaves to it. Of a request that is too large, nothing is kept."""

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):
        self.too_large = content_length > LARGEST + FIELDS

    def new_file(self, *args, **kwargs):
        super().new_file(*args, **kwargs)
        if self.too_large:
            raise StopUpload(connection_reset=False)
        self.sealed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- closed with the request
        self.key, self.sizes = secrets.token_bytes(32), []

    def receive_data_chunk(self, raw_data, start):
        piece = vault.seal(raw_data, aad=_place(len(self.sizes)), key=self.key)
        self.sealed.write(piece)
        self.sizes.append(len(piece))

    def file_complete(self, file_size):
        self.sealed.seek(0)
        opened = io.BufferedReader(_Opened(self.sealed, self.key, self.sizes))
        kind, charset = self.content_type, self.charset
        return UploadedFile(opened, self.file_name, kind, file_size, charset, self.content_type_extra)

    def upload_interrupted(self):
        if hasattr(self, "sealed"):
            self.sealed.close()


class _Opened(io.RawIOBase):
    """A sealed file, read once from its beginning."""

    def __init__(self, sealed: IO[bytes], key: bytes, sizes: list[int]):
        self._sealed, self._key, self._sizes = sealed, key, sizes
        self._next, self._rest = 0, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if not self._rest and self._next < len(self._sizes):
            piece = self._sealed.read(self._sizes[self._next])
            self._rest = vault.unseal(piece, aad=_place(self._next), key=self._key)
            self._next += 1
        given, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(given)] = given
        return len(given)

    def close(self) -> None:
        self._sealed.close()
        super().close()


def _place(number: int) -> bytes:
    return f"form file|{number}".encode()
