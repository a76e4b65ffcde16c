"""The English catalogue says everything that the Korean source says, and nothing of it escapes translation.

After adding or removing a sentence (GNU gettext is needed for the first command only):

    python manage.py makemessages -l en --no-obsolete --no-wrap --add-location never -i .venv -i var -i tests
    pybabel compile -f -i config/locale/en/LC_MESSAGES/django.po -o config/locale/en/LC_MESSAGES/django.mo
"""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po
from django.conf import settings
from django.template.base import Lexer, TokenType
from django.utils.translation.template import templatize

HERE = settings.BASE_DIR / "config" / "locale" / "en" / "LC_MESSAGES"
TEMPLATES = sorted(
    path for end in ("html", "txt") for path in (settings.BASE_DIR / "templates").rglob(f"*.{end}")
)
MODULES = sorted(
    path for app in ("config", "consents", "providers") for path in (settings.BASE_DIR / app).rglob("*.py")
)
HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]+")
PLACEHOLDER = re.compile(r"%\(\w+\)[.\d]*[a-z]|(?<!\$)\{\w*\}")
TAG = re.compile(r"</?[a-z]+\b")
OWN_NAMES = {"한국어"}  # what a language calls itself stays in that language
# name of the gettext function -> where its context, message and plural are among its arguments
FUNCTIONS = {
    "gettext": (None, 0, None),
    "ngettext": (None, 0, 1),
    "pgettext": (0, 1, None),
    "npgettext": (0, 1, 2),
}

Message = tuple[str | None, str, str | None]


def catalogue() -> list:
    """The messages of django.po, without the header."""
    with (HERE / "django.po").open("rb") as file:
        return [message for message in read_po(file, locale="en") if message.id]


def forms(value: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def marked_in_template(text: str) -> Iterator[Message]:
    """What makemessages would find: Django turns a template into calls of gettext, which are read here."""
    # Inside brackets indentation means nothing to the tokenizer.
    tokens = tokenize.generate_tokens(io.StringIO(f"(\n{templatize(text)}\n)").readline)
    for token in tokens:
        if token.type == tokenize.NAME and token.string in FUNCTIONS:
            arguments = []
            for inner in tokens:
                if inner.string == ")":
                    break
                if inner.type == tokenize.STRING:
                    arguments.append(ast.literal_eval(inner.string))
            yield pick(token.string, arguments)


def marked_in_module(path: Path) -> Iterator[Message]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "django.utils.translation":
            known |= {name.asname or name.name: re.sub("_(lazy|noop)$", "", name.name) for name in node.names}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and known.get(node.func.id) in FUNCTIONS
        ):
            function = known[node.func.id]
            wanted = [place for place in FUNCTIONS[function] if place is not None]
            arguments = node.args[: max(wanted) + 1]
            assert all(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in arguments), (
                f"{path}:{node.lineno}: only a plain string can be found by makemessages"
            )
            yield pick(function, [one.value for one in arguments])


def pick(function: str, arguments: list[str]) -> Message:
    context, message, plural = (None if place is None else arguments[place] for place in FUNCTIONS[function])
    return context, message, plural


def untranslated(text: str) -> Iterator[str]:
    """Hangul that a reader of any language would see: outside every translate tag and comment."""
    until = None
    for token in Lexer(text).tokenize():
        tag = token.contents.split()[0] if token.token_type == TokenType.BLOCK and token.contents else ""
        if until:
            until = None if tag == until else until
        elif tag in ("blocktranslate", "blocktrans", "comment"):
            until = f"end{tag}"
        elif token.token_type != TokenType.COMMENT and tag not in ("translate", "trans"):
            yield from (
                line.strip() for line in token.contents.splitlines() if set(HANGUL.findall(line)) - OWN_NAMES
            )


def test_every_message_has_its_english():
    silent = [message.id for message in catalogue() if message.fuzzy or not all(forms(message.string))]
    assert not silent
    assert not [message.id for message in catalogue() if HANGUL.search("".join(forms(message.string)))]


def test_the_compiled_catalogue_is_that_of_the_source():
    fresh = io.BytesIO()
    with (HERE / "django.po").open("rb") as source:
        write_mo(fresh, read_po(source, locale="en"))
    fresh.seek(0)
    with (HERE / "django.mo").open("rb") as kept:
        # The header is left out: it names the day and the version of the compiler.
        expected, found = (
            {(one.context, forms(one.id)): forms(one.string) for one in read_mo(file) if one.id}
            for file in (fresh, kept)
        )
    assert found == expected


def test_placeholders_and_tags_are_those_of_the_korean():
    for message in catalogue():
        korean, english = forms(message.id), forms(message.string)
        assert len(korean) == len(english), message.id
        for pattern in (PLACEHOLDER, TAG):
            expected = [Counter(pattern.findall(one)) for one in korean]
            found = [Counter(pattern.findall(one)) for one in english]
            # "Once a week" needs no number, whichever of the two languages says so.
            assert found[-1] == expected[-1] and found[0] in expected, message.id


def test_the_catalogue_has_what_templates_and_code_say_and_nothing_else():
    marked = {found for path in TEMPLATES for found in marked_in_template(path.read_text(encoding="utf-8"))}
    marked |= {found for path in MODULES for found in marked_in_module(path)}
    # A sentence used with and without plural is one message.
    said = {(context, message) for context, message, _ in marked}
    known = {(message.context, forms(message.id)[0]) for message in catalogue()}
    assert len(marked) > 1000
    assert not sorted(said - known, key=str), "missing from the catalogue"
    assert not sorted(known - said, key=str), "no longer said anywhere"
    plurals = {(context, message, plural) for context, message, plural in marked if plural}
    assert plurals == {(one.context, *one.id) for one in catalogue() if not isinstance(one.id, str)}


def test_no_korean_outside_translate_tags():
    found = {str(path): list(untranslated(path.read_text(encoding="utf-8"))) for path in TEMPLATES}
    assert not {name: lines for name, lines in found.items() if lines}


def test_the_checks_see_what_they_look_for():
    template = """{% load i18n %}{% translate "가" %}{% translate "서비스" context "여럿" %}
      {% blocktranslate trimmed count n=rows|length %}
        {{ n }}곳
        있어요
      {% plural %}
        {{ n }}곳 있어요!
      {% endblocktranslate %}{# 주석 #}<p title="나">{{ x|default:"다" }}</p>{% include "x.html" with text="라" %}한국어"""
    assert list(marked_in_template(template)) == [
        (None, "가", None),
        ("여럿", "서비스", None),
        (None, "%(n)s곳 있어요", "%(n)s곳 있어요!"),
    ]
    assert list(untranslated(template)) == [
        '<p title="나">',
        'x|default:"다"',
        'include "x.html" with text="라"',
    ]
