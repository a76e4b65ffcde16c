"""A person at a browser without JavaScript: reads what a page says, follows its links, fills in and sends its forms.

Nothing is posted that the page did not offer, so a story also proves that the pages lead from one to the next.
"""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

from django.core import mail
from django.test import Client

CODE = re.compile(r"^\s*([A-Z0-9]{3,5}-?[A-Z0-9]{3,5})\s*$", re.MULTILINE)
SILENT = {"script", "style", "title", "template"}
MOST_REDIRECTS = 10


@dataclass
class Button:
    form: "Form"
    name: str
    value: str
    label: str = ""


@dataclass
class Form:
    """`values` are what would be sent now; `offered` every value that a name can take, for boxes and choices."""

    action: str
    method: str
    id: str = ""
    values: list[tuple[str, str]] = field(default_factory=list)
    offered: dict[str, list[str]] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)

    def fill(self, **values: str) -> None:
        """Type into fields, or choose an option of a list."""
        for name, value in values.items():
            assert name in self.offered, f"no field {name} among {sorted(self.offered)}"
            self.values = [pair for pair in self.values if pair[0] != name] + [(name, value)]

    def tick(self, name: str, value: str = "on") -> None:
        assert value in self.offered.get(name, ()), f"no box {name}={value} among {self.offered}"
        if (name, value) not in self.values:
            self.values.append((name, value))

    def untick(self, name: str, value: str = "on") -> None:
        self.values.remove((name, value))


class Page(HTMLParser):
    """One answer: `text` as it reads, `links` as (label, address), `forms` and `buttons` in their order."""

    def __init__(self, url: str, status: int, html: str):
        super().__init__()
        self.url, self.status, self.html = url, status, html
        self.links: list[tuple[str, str]] = []
        self.forms: list[Form] = []
        self.buttons: list[Button] = []
        self.lang = ""
        self._words: list[str] = []
        self._silent = 0
        self._form: Form | None = None
        self._button: Button | None = None
        self._select: tuple[Form, str] | None = None
        self._area: tuple[Form, str] | None = None
        self._link: list[str] | None = None
        self._loose: list[tuple[str, Button]] = []
        self.feed(html)
        for ident, button in self._loose:
            button.form = next(form for form in self.forms if form.id == ident)

    @property
    def text(self) -> str:
        return " ".join("".join(self._words).split())

    def button(self, label: str, *, within: str = "") -> Button:
        """The button that reads `label`; `within`: of the form whose address holds this."""
        found = [one for one in self.buttons if label in one.label and within in one.form.action]
        assert found, f"no button {label!r} on {self.url} among {[one.label for one in self.buttons]}"
        exact = [one for one in found if one.label == label]
        return (exact or found)[0]

    def link(self, label: str) -> str:
        found = [address for text, address in self.links if label in text]
        assert found, f"no link {label!r} on {self.url} among {[text for text, _ in self.links]}"
        return found[0]

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        name, value = given.get("name", ""), given.get("value", "")
        match tag:
            case "html":
                self.lang = given.get("lang", "")
            case "form":
                action = urljoin(self.url, given.get("action") or self.url)
                self._form = Form(action, given.get("method", "get").lower(), given.get("id", ""))
                self.forms.append(self._form)
            case "a":
                self._link = [given.get("href", "")]
            case "button" if given.get("type", "submit") == "submit":
                self._button = Button(self._form or Form("", ""), name, value)
                self.buttons.append(self._button)
                if given.get("form"):
                    self._loose.append((given["form"], self._button))
            case "input" if self._form is not None and name and "disabled" not in given:
                box = given.get("type", "text") in ("checkbox", "radio")
                value = given.get("value", "on" if box else "")
                self._form.offered.setdefault(name, []).append(value)
                if not box or "checked" in given:
                    self._form.values.append((name, value))
                if "required" in given:
                    self._form.required.add(name)
            case "select" if self._form is not None and name:
                self._select = (self._form, name)
            case "option" if self._select is not None:
                form, chooser = self._select
                options = form.offered.setdefault(chooser, [])
                if not options or "selected" in given:  # the first is chosen until another says so
                    form.values = [pair for pair in form.values if pair[0] != chooser] + [(chooser, value)]
                options.append(value)
            case "textarea" if self._form is not None and name:
                self._form.offered[name] = [""]
                self._form.values.append((name, ""))
        self._silent += tag in SILENT
        if tag in {
            "p",
            "div",
            "li",
            "td",
            "th",
            "dt",
            "dd",
            "br",
            "section",
            "h1",
            "h2",
            "h3",
            "button",
            "a",
        }:
            self._words.append(" ")

    def handle_endtag(self, tag):
        self._silent -= tag in SILENT
        if tag == "form":
            self._form = None
        elif tag == "button":
            self._button = None
        elif tag == "select":
            self._select = None
        elif tag == "a" and self._link:
            self.links.append((" ".join("".join(self._link[1:]).split()), urljoin(self.url, self._link[0])))
            self._link = None

    def handle_data(self, data):
        if self._silent:
            return
        self._words.append(data)
        if self._button is not None:
            self._button.label = " ".join(f"{self._button.label}{data}".split())
        if self._link is not None:
            self._link.append(data)


class Visitor:
    """`page` is what is on the screen; `screens` counts the pages seen."""

    def __init__(self, *, language: str = "ko"):
        self.client = Client(enforce_csrf_checks=True, headers={"Accept-Language": language})
        self.page = Page("/", 0, "")
        self.screens: list[str] = []

    def open(self, address: str, *, status: int = 200) -> Page:
        return self._arrive(self.client.get(self._path(address)), address, status)

    def follow(self, label: str, *, status: int = 200) -> Page:
        """Click a link."""
        return self.open(self.page.link(label), status=status)

    def press(self, button: str | Button, *, within: str = "", status: int = 200) -> Page:
        """Send the form of a button."""
        pressed = self.page.button(button, within=within) if isinstance(button, str) else button
        form = pressed.form
        sent = [*form.values, *([(pressed.name, pressed.value)] if pressed.name else [])]
        missing = form.required - {name for name, value in sent if value}
        assert not missing, f"the browser would ask for {missing} first"
        query = urlencode(sent)
        if form.method == "get":
            address = f"{form.action.partition('?')[0]}?{query}"
            return self._arrive(self.client.get(self._path(address)), address, status)
        answer = self.client.post(
            self._path(form.action), query, content_type="application/x-www-form-urlencoded"
        )
        return self._arrive(answer, form.action, status)

    def _arrive(self, answer, address: str, status: int) -> Page:
        for _ in range(MOST_REDIRECTS):
            if answer.status_code not in (301, 302, 303):
                break
            address = urljoin(address, answer["Location"])
            answer = self.client.get(self._path(address))
        assert answer.status_code == status, (address, answer.status_code, answer.content.decode()[:3000])
        self.page = Page(self._path(address), answer.status_code, answer.content.decode())
        self.screens.append(self.page.url)
        return self.page

    @staticmethod
    def _path(address: str) -> str:
        parts = urlsplit(address)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    # --- signing in, as a person does ----------------------------------------------------------------------------------

    def sign_up(self, email: str, *, born_on: str = "1990-05-01") -> Page:
        """From the sign-in page: a new account, confirmed with the code of the letter."""
        self.follow("먼저 가입해 주세요")
        form = self.page.button("계속하기").form
        form.fill(email=email, born_on=born_on)
        self.press("계속하기")
        return self._confirm(email)

    def sign_in(self, email: str) -> Page:
        """From the sign-in page, with a code by e-mail."""
        self.follow("코드를 메일로 받기")
        button = next(one for one in self.page.buttons if "email" in one.form.offered)
        button.form.fill(email=email)
        self.press(button)
        return self._confirm(email)

    def _confirm(self, email: str) -> Page:
        letter = mail.outbox[-1]
        assert letter.to == [email]
        code = CODE.findall(letter.body)[0]
        button = next(one for one in self.page.buttons if "code" in one.form.offered)
        button.form.fill(code=code)
        return self.press(button)
