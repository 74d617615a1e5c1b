"""Which encoding a text file has, found from its bytes, and the file as UTF-8 whatever it has."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import BinaryIO

from drkun_tui.training.data.summary import data_error

CHUNK = 1 << 20

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; UTF-32's begins with UTF-16's, so it comes first."""

_WRONG_SHARE = 0.1
"""Of the characters outside ASCII, above which an encoding is not that of the file."""

_PLAUSIBLE_SHARE = 0.9
"""Of the characters of a UTF-16 file without a mark, at least so many belong to a text."""

_NO_TEXT = bytes(code for code in range(32) if chr(code) not in "\t\n\r\f\x0b\x1b")
"""Control characters that stand in no text."""


def find(path: Path) -> tuple[str, bool]:
    """The encoding of a file in Python's name for it, and whether every byte of the file is right in it as
    far as it had to be looked at: UTF-8 is checked to the end. UTF-16 without a mark is known by the zero
    bytes of its separators and line breaks.

    Raises:
        DrkunError: ``binary``: it is no text.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        before, chunk = b"", file.read(CHUNK)
        for mark, name in _MARKS:
            if chunk.startswith(mark):
                return name, False
        if b"\0" in chunk:
            return _two_bytes(chunk, path), False
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError:
                return _several_bytes(before + chunk, path), False
            if not chunk:
                return "utf-8", True
            before, chunk = chunk, file.read(CHUNK)


def _several_bytes(sample: bytes, path: Path) -> str:
    """UTF-8 with a fault, or GB18030, of which GBK and GB2312 are parts: the one with few faults. Chinese in
    the one is almost all faults in the other, in one direction only, so UTF-8 is asked first."""
    for encoding in ("utf-8", "gb18030"):
        text = sample.decode(encoding, "replace")
        foreign = len(text) - len(text.encode("ascii", "ignore"))
        # A sample may begin and end in the middle of a character, and one fault alone is none.
        if text.count("\ufffd") <= max(1, _WRONG_SHARE * foreign) and not _is_noise(text):
            return encoding
    raise data_error("binary", path=str(path))


def _is_noise(text: str) -> bool:
    """Control characters beyond what a text has."""
    plain = text.encode("ascii", "ignore")
    controls = len(plain) - len(plain.translate(None, _NO_TEXT))
    return controls > 0.01 * len(text) + 1


def _two_bytes(sample: bytes, path: Path) -> str:
    """UTF-16 without a mark: the byte order in which it reads as text."""
    sample = sample[: len(sample) // 2 * 2]
    for encoding in ("utf-16-le", "utf-16-be"):
        text = sample.decode(encoding, "replace")[: 1 << 16]
        plausible = sum(
            char in "\t\n\r"
            or " " <= char <= "~"
            or "\u3000" <= char <= "\u9fff"
            or "\uff00" <= char <= "\uffef"
            for char in text
        )
        if text and plausible >= _PLAUSIBLE_SHARE * len(text):
            return encoding
    raise data_error("binary", path=str(path))


class Utf8(io.RawIOBase):
    """A text file, read as UTF-8 without a byte order mark; what is wrong in its encoding becomes U+FFFD.

    Args:
        file: open for reading bytes; closed with this.
        encoding: as `find` has it.

    Attributes:
        taken: bytes read from the file so far.
    """

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._ready = memoryview(b"")
        self._ended = False
        self.taken = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As much as fits and there is; 0 at the end. Whoever parses blocks is given whole ones."""
        count = 0
        while count < len(buffer):
            while not self._ready and not self._ended:
                chunk = self._file.read(CHUNK)
                self.taken += len(chunk)
                self._ended = not chunk
                text = self._decoder.decode(chunk, final=self._ended)
                # A decoder may let lone surrogates pass, UTF-8 does not.
                self._ready = memoryview(text.encode("utf8", "replace"))
            some = min(len(buffer) - count, len(self._ready))
            if not some:
                break
            buffer[count : count + some] = self._ready[:some]
            self._ready = self._ready[some:]
            count += some
        return count

    def close(self) -> None:
        """Close the file, too."""
        self._file.close()
        super().close()
