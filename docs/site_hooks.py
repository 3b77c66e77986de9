"""What the site needs beyond Markdown: equations as MathML, so that no script draws them, and links into the source."""

from __future__ import annotations

import logging
import re
from dataclasses import MISSING, fields
from html import escape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

from autolora.experiments.config import RunConfig

OPTIONS = "<!-- the options of a run -->"
ROOT = Path(__file__).resolve().parents[1]
DISPLAYED = re.compile(r"^\$\$([^$`]+)\$\$$|^\.\. math:: (.+)$", re.MULTILINE)
INLINE = re.compile(r"(?<![\w$`\\])\$(?=\S)([^$`\n]+?)(?<=\S)\$(?![\w$])")
ROLE = re.compile(r":(?:class|func|mod|data|meth):`~?([^`]+)`")
TAG = re.compile(r"\\tag\{([^}]*)\}")
LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#]+)\)")

logger = logging.getLogger("mkdocs.hooks.site")


class Equations(Preprocessor):
    """Turn ``$$...$$`` and ``$...$``, which pages write, and ``.. math::``, which docstrings write, into MathML."""

    def run(self, lines: list[str]) -> list[str]:
        """Replace every equation of a page or a docstring."""
        text = DISPLAYED.sub(lambda found: self._stash(found[1] or found[2]), "\n".join(lines))
        text = INLINE.sub(lambda found: self.md.htmlStash.store(convert(found[1])), text)
        return ROLE.sub(r"`\1`", text).split("\n")

    def _stash(self, latex: str) -> str:
        tag = TAG.search(latex)
        drawn = convert(TAG.sub("", latex).strip(), display="block").replace("<math ", '<math style="flex: 1" ', 1)
        number = f"<span>({escape(tag[1])})</span>" if tag else ""
        place = self.md.htmlStash.store(f'<div style="display: flex; align-items: center">{drawn}{number}</div>')
        return f"\n{place}\n"


class Mathematics(Extension):
    """Equations, before anything else of Markdown can see them."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Join in behind what recognises blocks of code."""
        md.preprocessors.register(Equations(md), "equations", 22)


def on_config(config: Any) -> Any:
    """Let pages and docstrings have equations."""
    config.markdown_extensions.append(Mathematics())
    return config


def _options() -> str:
    """Write the fields of a run's configuration as a table, from where they are defined."""
    rows = ["| option | default | |", "|---|---|---|"]
    for item in fields(RunConfig):
        default = "" if item.default is MISSING else f"`{item.default}`"
        rows.append(f"| `{item.name}` | {default} | {item.metadata.get('help', '')} |")
    return "\n".join(rows)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill in the table of options; name files of the repository that a page links to: the site does not hold them."""
    markdown = markdown.replace(OPTIONS, _options())
    here = Path(page.file.src_uri).parent

    def named(found: re.Match[str]) -> str:
        target = (ROOT / "docs" / here / found[2]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return found[0]
        if not target.exists():
            logger.warning(f"{page.file.src_uri} links to {found[2]}, which is not in the repository")
        path = str(target.relative_to(ROOT))
        return f"`{path}`" if path in found[1] else f"{found[1]} (`{path}`)"

    return LINK.sub(named, markdown)
