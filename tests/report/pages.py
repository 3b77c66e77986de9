"""A page as a strict reader sees it: every tag closed, every name there once, every table a list of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}
EXPECTED = {
    *("html", "head", "meta", "title", "style", "body", "header", "footer", "nav", "main", "section", "article"),
    *("h1", "h2", "h3", "h4", "p", "ul", "li", "a", "dl", "dt", "dd", "div", "span", "bdi", "strong", "code", "pre"),
    *("table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "details", "summary", "img", "br", "b", "i"),
    *("svg", "g", "path", "defs", "use", "clippath", "rect", "text", "desc"),
}


@dataclass
class Element:
    """A tag with its attributes and all that is in it."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Return the text, as it reads."""
        return " ".join("".join(self.pieces()).split())

    def pieces(self) -> Iterator[str]:
        """Give all text in it, in order."""
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child.pieces()

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Find what is in it, by tag and attributes (``class_`` for one of its classes)."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if (not tag or child.tag == tag) and child._has(attributes):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def _has(self, attributes: dict[str, str]) -> bool:
        classes = self.attributes.get("class", "").split()
        return all(
            value in classes if name == "class_" else self.attributes.get(name) == value
            for name, value in attributes.items()
        )


class Page(HTMLParser):
    """Read a page, and fail where its tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root], f"never closed: {[element.tag for element in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice: {attrs}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def section(self, name: str) -> Element:
        """Return a section by its id."""
        (found,) = self.root.all("section", id=name)
        return found


def rows(table: Element) -> list[list[str]]:
    """Return the cells of a table as text."""
    return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in table.all("tr")]
