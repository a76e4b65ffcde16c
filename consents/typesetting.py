"""Sets a sheet of words as PDF, with Typst in this process: bounded in time, size and number, and without the network.

The words go in as data (`sys.inputs`), never as markup, so that nothing anybody wrote can become a command. Hangul comes
from a font that is installed with us: no font of the machine is used, and the same words give the same bytes anywhere.
"""

import concurrent.futures
import datetime
import functools
import json
import threading
from pathlib import Path
from typing import Any

import pylopdf_fonts_ko
import typst
from django.conf import settings

LARGEST = 1_000_000  # bytes of words
SECONDS = 15  # until somebody who waits is told to come back
AT_ONCE = 1  # sheets set at a time in a process
WAITING = 8  # sheets that may wait for their turn


class CannotSet(Exception):
    """The sheet was not set: too large, too slow, or too many at once. The same words can be had as a file."""


_places = threading.BoundedSemaphore(AT_ONCE + WAITING)


@functools.lru_cache(maxsize=1)
def _setters() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="typesetting")


@functools.lru_cache(maxsize=1)
def _fonts() -> typst.Fonts:
    folder = Path(pylopdf_fonts_ko.sans_path()).parent
    return typst.Fonts(include_system_fonts=False, include_embedded_fonts=True, font_paths=[str(folder)])


def pdf(sheet: dict[str, Any], *, template: str, language: str, at: datetime.datetime) -> bytes:
    """The sheet as PDF/UA, set with a Typst file under `templates/`; `at` is the moment in its metadata. Raises CannotSet."""
    words = json.dumps({**sheet, "language": language}, ensure_ascii=False)
    if len(words.encode()) > LARGEST:
        raise CannotSet("too large")
    if not _places.acquire(blocking=False):
        raise CannotSet("too many at once")
    future = _setters().submit(_set, settings.BASE_DIR / "templates" / template, words, int(at.timestamp()))
    future.add_done_callback(lambda _done: _places.release())
    try:
        return future.result(timeout=SECONDS)
    except (concurrent.futures.TimeoutError, typst.TypstError) as problem:
        future.cancel()
        raise CannotSet(str(problem) or "too slow") from problem


def _set(source: Path, words: str, timestamp: int) -> bytes:
    compiler = typst.Compiler(root=str(source.parent), font_paths=_fonts(), ignore_system_fonts=True)
    return compiler.compile(  # type: ignore[return-value]
        str(source),
        format="pdf",
        sys_inputs={"words": words},
        pdf_standards="ua-1",
        timestamp=timestamp,
    )
