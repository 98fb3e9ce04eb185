"""The page as a browser has it: parsed, with its forms to be filled in and sent. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

from fastapi.testclient import TestClient
from httpx import Response

ADDRESSES = ("href", "src", "action", "formaction", "data", "poster", "data-poll", "xlink:href", "srcset", "srcdoc")
"""Attributes that hold an address, or may run one."""

VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Element:
    tag: str
    attrs: dict[str, str]
    own: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it, with what is inside, in one line."""
        return " ".join("".join(self.own).split())


class Page(HTMLParser):
    """Every element of a page, in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.own.append(data)

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.elements if element.tag in tags]

    def one(self, tag: str) -> Element:
        [found] = self.all(tag)
        return found

    @property
    def text(self) -> str:
        return self.one("body").text

    @property
    def message(self) -> str:
        """The sentence that came along over a redirect."""
        return next((one.text for one in self.all("p") if one.attrs.get("class") == "message"), "")

    @property
    def problem(self) -> str:
        return next((one.text for one in self.all("p") if one.attrs.get("class") == "problem"), "")

    @property
    def addresses(self) -> list[str]:
        """Everything that is linked to, loaded, sent to or asked again."""
        found = [element.attrs[name] for element in self.elements for name in ADDRESSES if name in element.attrs]
        return found + [one.attrs["content"].partition("url=")[2] for one in self.refreshes]

    @property
    def refreshes(self) -> list[Element]:
        return [one for one in self.all("meta") if one.attrs.get("http-equiv", "").lower() == "refresh"]

    def links(self, text: str | None = None) -> list[str]:
        return [one.attrs["href"] for one in self.all("a") if text is None or one.text == text]

    def link(self, text: str) -> str:
        [address] = self.links(text)
        return address

    @property
    def rows(self) -> list[str]:
        """The names in a table of the roster, the sources or the incidents."""
        heads = (one for one in self.all("th") if one.attrs.get("scope") == "row")
        return [one.text for one in heads]

    def forms(self) -> list[Form]:
        starts = [place for place, element in enumerate(self.elements) if element.tag == "form"]
        ends = [*starts[1:], len(self.elements)]
        return [_form(self.elements[start:end]) for start, end in zip(starts, ends, strict=False)]

    def form(self, title: str) -> Form:
        """The form whose button says this."""
        [found] = [form for form in self.forms() if form.title == title]
        return found

    @property
    def changing(self) -> list[str]:
        """The buttons that change something."""
        return [form.title for form in self.forms() if form.method == "post"]


@dataclass
class Form:
    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    """As it would be sent if nobody touched it."""
    title: str = ""
    """What is on its button."""


def _form(elements: list[Element]) -> Form:
    """What begins with this element, and all that is sent with it."""
    attrs = elements[0].attrs
    form, chosen = Form(attrs.get("method", "get"), attrs["action"]), ""
    for element in elements[1:]:
        attrs = element.attrs
        is_left_out = attrs.get("type") == "checkbox" and "checked" not in attrs
        if element.tag == "input" and "name" in attrs and not is_left_out:
            form.fields[attrs["name"]] = attrs.get("value", "")
        elif element.tag == "select":
            chosen = attrs["name"]
        elif element.tag == "option" and ("selected" in attrs or chosen not in form.fields):
            form.fields[chosen] = attrs.get("value", element.text)
        elif element.tag == "button" and not form.title:
            form.title = element.text
    return form


@dataclass
class Browser:
    """One person's browser: it holds their cookie and follows no redirect unless told."""

    client: TestClient
    name: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Cookie": f"_token={self.token}"} if self.token else {}

    def get(self, path: str, **headers: str) -> Response:
        return self.client.get(path, headers={**self.headers, **headers}, follow_redirects=False)

    def open(self, path: str, status_code: int = 200) -> Page:
        answer = self.get(path)
        assert answer.status_code == status_code, f"{path}: {answer.status_code} {answer.text[:400]}"
        return Page(answer.text)

    def json(self, path: str, status_code: int = 200) -> Any:
        answer = self.get(path)
        assert answer.status_code == status_code, f"{path}: {answer.status_code} {answer.text[:400]}"
        return answer.json()

    def post(self, path: str, fields: dict[str, Any] | None = None, **headers: str) -> Response:
        """A form, as a page would send it."""
        given = {**self.headers, **FORM, **headers}
        return self.client.post(path, data=fields or {}, headers=given, follow_redirects=False)

    def tell(self, path: str, body: Any = None, **headers: str) -> Response:
        """JSON, as a script would send it."""
        given = {**self.headers, "Content-Type": "application/json", **headers}
        content = {} if body is None else {"json": body}
        return self.client.post(path, headers=given, follow_redirects=False, **content)

    def submit(self, form: Form, **fields: str) -> Response:
        if form.method == "get":
            return self.client.get(
                form.action, params={**form.fields, **fields}, headers=self.headers, follow_redirects=False
            )
        return self.post(form.action, {**form.fields, **fields})

    def press(self, path: str, title: str, **fields: str) -> Page:
        """Open a page, press its button, and see the page that comes next."""
        answer = self.submit(self.open(path).form(title), **fields)
        assert answer.status_code in (200, 303), f"{title}: {answer.status_code} {answer.text[:600]}"
        return self.open(answer.headers["location"]) if answer.status_code == 303 else Page(answer.text)

    def form_token(self) -> str:
        """One that a page made for this person holds."""
        from airflow_oauth_guard.plugin.signing import signer

        return str(signer("form").dumps(self.name))


def inert(page: Page) -> None:
    """Nothing on the page runs but our own script, whatever was written into it."""
    for element in page.elements:
        on_something = [name for name in element.attrs if name.startswith("on") or name == "style"]
        assert not on_something, f"<{element.tag}> has {on_something}"
    scripts = [(one.attrs, one.text) for one in page.all("script")]
    assert len(scripts) == 1, scripts
    [(attrs, text)] = scripts
    assert set(attrs) == {"src"}, attrs
    assert attrs["src"].endswith("/oauth-guard/static/guard.js"), attrs
    assert text == ""
    assert [one.attrs["src"].rpartition("/")[2] for one in page.all("img")] == ["icon.svg"]
    unknown = {element.tag for element in page.elements} - KNOWN
    assert not unknown, f"elements that no template of ours has: {unknown}"
    for address in page.addresses:
        assert urlsplit(address).scheme in ("", "http", "https"), address


KNOWN = frozenset(
    {
        *(
            "html",
            "head",
            "meta",
            "title",
            "link",
            "script",
            "body",
            "a",
            "header",
            "img",
            "nav",
            "main",
            "section",
            "div",
        ),
        *(
            "article",
            "p",
            "h1",
            "h2",
            "h3",
            "span",
            "ul",
            "ol",
            "li",
            "dl",
            "dt",
            "dd",
            "form",
            "input",
            "label",
            "select",
        ),
        *(
            "option",
            "button",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "details",
            "summary",
            "code",
            "pre",
            "strong",
        ),
        *("time", "br", "svg", "rect", "polygon", "line", "circle", "text", "figure", "figcaption"),
    }
)
"""What our templates are made of."""
