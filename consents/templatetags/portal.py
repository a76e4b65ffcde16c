"""Words, dates, icons and small pictures for the pages; reads what it is given and runs no query."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import get_language, ngettext
from django.utils.translation import gettext as _
from lucide.templatetags.lucide import lucide

from consents.templatetags import labels

register = template.Library()

NO_END = dt.date(9999, 12, 31)


# Text in two languages -------------------------------------------------------


def _language() -> str:
    return "en" if (get_language() or "ko").startswith("en") else "ko"


def _attribute(thing: Any, name: str) -> Any:
    if isinstance(thing, dict):
        return thing.get(name)
    return getattr(thing, name, None)


@register.filter
def loc(thing: Any, field: str) -> Any:
    """`name_ko` or `name_en` of an object or dict by the active language; the other one where that is empty."""
    first = _language()
    second = "ko" if first == "en" else "en"
    return _attribute(thing, f"{field}_{first}") or _attribute(thing, f"{field}_{second}") or ""


# Dates and moments -----------------------------------------------------------


def _day_in_seoul(value: dt.date | dt.datetime) -> dt.date:
    if isinstance(value, dt.datetime):
        return timezone.localtime(value).date()
    return value


def _day_words(day: dt.date, *, with_year: bool = True) -> str:
    if _language() == "en":
        month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[
            day.month - 1
        ]
        return f"{day.day} {month} {day.year}" if with_year else f"{day.day} {month}"
    return f"{day.year}년 {day.month}월 {day.day}일" if with_year else f"{day.month}월 {day.day}일"


@register.filter
def day(value: dt.date | dt.datetime | None) -> str:
    """A date in words, always with its year; empty for None. A moment counts as its day in Seoul."""
    return _day_words(_day_in_seoul(value)) if value else ""


@register.filter
def moment(value: dt.datetime | None) -> SafeString | str:
    """A moment as Seoul clock time inside <time>; the year is left out while it is this year's."""
    if not value:
        return ""
    local = timezone.localtime(value)
    same_year = local.year == timezone.localtime().year
    words = f"{_day_words(local.date(), with_year=not same_year)} {local:%H:%M}"
    return format_html(
        '<time datetime="{}">{}</time>', f"{value.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}", words
    )


@register.filter
def ago(value: dt.date | dt.datetime | None) -> str:
    """How long since, in whole days, months or years of the Seoul calendar; empty for None."""
    if not value:
        return ""
    days = (timezone.localdate() - _day_in_seoul(value)).days
    if days <= 0:
        return _("오늘")
    if days == 1:
        return _("어제")
    if days < 31:
        return ngettext("%(n)d일 전", "%(n)d일 전", days) % {"n": days}
    if days < 365:
        months = days // 30
        return ngettext("%(n)d달 전", "%(n)d달 전", months) % {"n": months}
    years = days // 365
    return ngettext("%(n)d년 전", "%(n)d년 전", years) % {"n": years}


@register.filter
def until(value: dt.date | dt.datetime | None, what: str = "erase") -> str:
    """An end date in words; no end reads as until erased, or with `until:"stop"` as until stopped."""
    if not value or _day_in_seoul(value) >= NO_END:
        return _("그만둘 때까지") if what == "stop" else _("지워 달라고 할 때까지")
    return _("%(day)s까지") % {"day": day(value)}


@register.filter
def cycle(value: str) -> str:
    """The standard's cycle (`1/1w` to `1/4w`; empty = only with the person present) in words."""
    if not value:
        return _("내가 앱을 열 때만")
    found = re.fullmatch(r"(\d+)/(\d+)([dwm])", value)
    if not found:
        return value
    times, every, unit = int(found[1]), int(found[2]), found[3]
    if unit == "w" and times == 1:
        return ngettext("매주 한 번", "%(n)d주에 한 번", every) % {"n": every}
    units = {"d": _("일"), "w": _("주"), "m": _("달")}
    return _("%(every)d%(unit)s에 %(times)d번") % {"times": times, "every": every, "unit": units[unit]}


@register.filter
def retention(days: int | None) -> str:
    """How long kept, from a number of days; None means until the person leaves or asks."""
    if days is None:
        return _("지워 달라고 할 때까지")
    if days % 365 == 0 and days:
        return ngettext("%(n)d년 동안", "%(n)d년 동안", days // 365) % {"n": days // 365}
    return ngettext("%(n)d일 동안", "%(n)d일 동안", days) % {"n": days}


@register.filter
def number(value: int | None) -> str:
    """A whole number with thousands separators; empty for None."""
    return "" if value is None else f"{value:,}"


@register.filter
def duration(value: dt.timedelta | float | None) -> str:
    """A length of time (timedelta or seconds) in its largest fitting unit; empty for None."""
    if value is None:
        return ""
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else float(value)
    if seconds < 60:
        return ngettext("%(n)d초", "%(n)d초", round(seconds)) % {"n": round(seconds)}
    if seconds < 3600:
        return ngettext("%(n)d분", "%(n)d분", round(seconds / 60)) % {"n": round(seconds / 60)}
    if seconds < 48 * 3600:
        return ngettext("%(n)d시간", "%(n)d시간", round(seconds / 3600)) % {"n": round(seconds / 3600)}
    return ngettext("%(n)d일", "%(n)d일", round(seconds / 86400)) % {"n": round(seconds / 86400)}


# Labels ----------------------------------------------------------------------


@register.filter
def label(code: str, kind: str) -> str:
    """The plain word for a code, e.g. `"retrying"|label:"delivery"`; the code itself where none is known."""
    found = labels.WORDS.get(kind, {}).get(code)
    return str(found[0]) if found else code


@register.filter
def tone(code: str, kind: str) -> str:
    """How a state should feel: neutral, info, good, wait, late or bad."""
    found = labels.WORDS.get(kind, {}).get(code)
    return found[1] if found else "neutral"


@register.simple_tag
def state(kind: str, code: str) -> str:
    """A badge for a state: `{% state "subscription" row.state %}`. Kinds are the keys of `labels.WORDS`."""
    return render_to_string(
        "_components/badge.html",
        {
            "text": label(code, kind),
            "tone": tone(code, kind),
            "icon_name": labels.ICON_OF_TONE.get(tone(code, kind)),
        },
    )


# Icons and wrappers ----------------------------------------------------------


@register.simple_tag
def icon(name: str, size: int = 20) -> str:
    """A Lucide icon as inline SVG, hidden from screen readers: the words beside it must say the same."""
    return lucide(name, size=size, **{"class": "icon", "aria-hidden": "true", "focusable": "false"})


@register.simple_block_tag
def notice(content: str, tone: str = "info", title: str = "", level: int = 2, live: bool = False) -> str:
    """A box that says something important; `tone` info, good, late or bad; `live` announces it."""
    return render_to_string(
        "_components/notice.html",
        {
            "content": content,
            "tone": tone,
            "title": title,
            "level": level,
            "live": live,
            "icon_name": labels.ICON_OF_TONE.get(tone, "info"),
        },
    )


@register.simple_block_tag
def panel(content: str, title: str = "", level: int = 2, tone: str = "", ident: str = "") -> str:
    """A titled white card."""
    return render_to_string(
        "_components/panel.html",
        {"content": content, "title": title, "level": level, "tone": tone, "ident": ident},
    )


@register.simple_block_tag
def data_table(
    content: str,
    caption: str,
    ident: str,
    hide_caption: bool = False,
    plain: bool = False,
    stack: bool = False,
) -> str:
    """A table that scrolls inside its own keyboard-reachable frame; `ident` is unique on the page.

    `stack`: on a narrow screen each row becomes a block instead, its cells named by their `data-label`."""
    return render_to_string(
        "_components/data_table.html",
        {
            "content": content,
            "caption": caption,
            "ident": ident,
            "hide_caption": hide_caption,
            "plain": plain,
            "stack": stack,
        },
    )


@register.simple_block_tag
def filters(content: str, title: str = "", submit: str = "", clear_url: str = "") -> str:
    """A GET form around labelled inputs (`<div class="field">…`)."""
    return render_to_string(
        "_components/filters.html",
        {"content": content, "title": title, "submit": submit, "clear_url": clear_url},
    )


# The flow picture ------------------------------------------------------------


@register.inclusion_tag("_components/flow_picture.html")
def flow_picture(rows: list[dict[str, Any]], ident: str = "flow") -> dict[str, Any]:
    """
    Draw sources → operators. A row is one pair: `source`, `operator` (names), `sensitivity` 1–5, `items` (words),
    optional `operator_url`, `held` (True = no longer flowing, only kept).

    Both columns spread evenly over one height, so a band runs between two fractions of it; the SVG is
    stretched to the frame and only the stroke keeps its width.
    """
    sources = list(dict.fromkeys(row["source"] for row in rows))
    operators = list(dict.fromkeys(row["operator"] for row in rows))
    urls = {row["operator"]: row.get("operator_url", "") for row in rows}
    bands = []
    for row in sorted(rows, key=lambda row: row.get("sensitivity", 1)):
        start = round((sources.index(row["source"]) + 0.5) / len(sources) * 1000)
        end = round((operators.index(row["operator"]) + 0.5) / len(operators) * 1000)
        level = max(1, min(5, row.get("sensitivity") or 1))
        bands.append(
            {
                "path": f"M0 {start} C 450 {start} 550 {end} 1000 {end}",
                "level": level,
                "width": 1 + level * 2,
                "held": bool(row.get("held")),
            }
        )
    return {
        "sources": sources,
        "operators": [{"name": name, "url": urls[name]} for name in operators],
        "bands": bands,
        "rows": rows,
        "ident": ident,
    }
