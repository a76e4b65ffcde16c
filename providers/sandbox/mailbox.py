"""The pretend mailbox: letters that Django's file-based mail backend wrote into a folder, newest first."""

import email
import email.policy
import os
import re
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

PAGE = 20
LARGEST = 262_144  # bytes of one file
_BETWEEN = re.compile(rb"^-{79}\r?\n", re.MULTILINE)  # what the backend writes after each letter
_CODE = re.compile(r"^\s*([A-Z0-9]{3,5}-?[A-Z0-9]{3,5})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Letter:
    to: str
    subject: str
    date: str
    text: str
    codes: tuple[str, ...]


def page(folder: Path | None, number: int) -> tuple[list[Letter], bool]:
    """The letters of page `number` (from 1), and whether there are older ones."""
    paths = _files(folder)
    first = (number - 1) * PAGE
    letters = [letter for path in paths[first : first + PAGE] for letter in _letters(path)]
    return letters, len(paths) > first + PAGE


def _files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    try:
        with os.scandir(folder) as entries:
            found = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.name)
                for entry in entries
                if entry.name.endswith((".log", ".eml")) and entry.is_file(follow_symlinks=False)
            ]
    except OSError:
        return []
    return [folder / name for _, name in sorted(found, reverse=True)]


def _letters(path: Path) -> list[Letter]:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST)
    except OSError:
        return []
    parts = [part for part in _BETWEEN.split(content) if part.strip()]
    return [_letter(part) for part in reversed(parts)]  # several letters of one connection share a file


def _letter(raw: bytes) -> Letter:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    try:
        part = message.get_body(("plain", "html"))
        text = part.get_content() if part else ""
    except (LookupError, ValueError, KeyError):
        text = raw.decode("utf-8", "replace")
    text = text.strip()
    to, subject, date = (str(message[name] or "") for name in ("To", "Subject", "Date"))
    return Letter(to, subject, date, text, tuple(dict.fromkeys(_CODE.findall(text))))
