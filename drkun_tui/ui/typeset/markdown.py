"""Lays Markdown out as wrapped lines of styled spans.

Made for what chat models write: single newlines stay line breaks, emphasis also works where
Chinese punctuation touches it (``**注意：**请``), list numbers stay as written. Vertical space is the
source's own: a blank line appears where the source has one or more. Every text is cleaned after
parsing, because entities such as ``&#27;`` would bring control characters back. No text is lost:
what the parser cannot show whole is shown as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from drkun_tui.ui.typeset.blocks import BlockStream, blocks
from drkun_tui.ui.typeset.sanitise import clean
from drkun_tui.ui.typeset.table import table_lines
from drkun_tui.ui.typeset.wrap import Line, Span, fold, wrap

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from markdown_it.tree import SyntaxTreeNode

__all__ = ["STYLES", "BlockStream", "blocks", "code_blocks", "render_block"]

STYLES = ("strong", "em", "strike", "code", "heading", "quote", "bullet", "link", "table", "dim")
"""Every style name there is. A span in several has them all, outermost first: "quote strong"."""

_INLINE = {"strong_open": "strong", "em_open": "em", "s_open": "strike", "link_open": "link"}

_NARROWEST = 4
"""Lists and quotes are not indented where that would leave fewer cells than this."""

_ENDS_BLANK = re.compile(r"\n *\n\Z")
_INDENTED_LIST = re.compile(r"\n*( {1,3})(?:[-+*]|\d{1,9}[.)]) ")
_LANGUAGE = re.compile(r"[\w+#.-]*", re.ASCII)
_COLUMN_END = re.compile(r"(?<!\\)\|")


def render_block(block: str, width: int) -> list[Line]:
    """One block as lines of at most ``width`` cells.

    Blocks are joined by putting their lines one after another: a block that ends with a blank line
    in the source ends with one blank line here. Never raises.
    """
    width = max(width, 1)
    block = clean(block)
    text = block.strip("\n")
    if not text.strip(" "):
        return []
    try:
        lines = _layout(block, width)
    except Exception:  # also a bug in the parser must not take an answer from the screen
        lines = wrap([Span(text)], width)
    if _ENDS_BLANK.search(block):
        lines.append(())
    return lines


def code_blocks(text: str) -> list[str]:
    """What the fenced code blocks hold, in order and cleaned: for copying."""
    found: list[str] = []
    for block in blocks(clean(text)):
        if "```" in block or "~~~" in block:
            found += [clean(token.content) for token in _parser().parse(block) if token.type == "fence"]
    return found


class _ShownAsWrittenError(Exception):
    """The parser would lose text."""


@cache
def _parser() -> MarkdownIt:
    # Imported on first use: the first screen has no Markdown on it.
    from drkun_tui.ui.typeset.parser import make

    return make()


def _layout(block: str, width: int) -> list[Line]:
    from markdown_it.tree import SyntaxTreeNode

    tokens = _parser().parse(block)
    # What is nested deeper than its limit, the parser drops.
    if max((token.level for token in tokens), default=0) >= _parser().options.maxNesting - 1:
        raise _ShownAsWrittenError
    # A list that is indented, though by less than its parent's text, is meant to be nested.
    list_indent = _INDENTED_LIST.match(block)
    prefix = list_indent[1] if list_indent and width - len(list_indent[1]) >= _NARROWEST else ""
    lines = _Layout(block.split("\n")).children(SyntaxTreeNode(tokens), width - len(prefix))
    return _prefixed(lines, Span(prefix), Span(prefix)) if prefix else lines


class _Layout:
    """Lays a syntax tree out: every method takes a node and a width, and returns lines."""

    def __init__(self, source: Sequence[str]) -> None:
        self._source = source
        self._base = ""  # the style around the current node
        self._kinds: dict[str, Callable[[SyntaxTreeNode, int], list[Line]]] = {
            "paragraph": self._text,
            "heading": self._heading,
            "bullet_list": self.children,
            "ordered_list": self.children,
            "list_item": self._item,
            "blockquote": self._quote,
            "fence": self._code,
            "code_block": self._code,
            "hr": self._rule,
            "table": self._table,
        }

    def children(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        lines: list[Line] = []
        for child in node.children:
            if lines and child.map and not self._source[child.map[0] - 1].strip(" >"):
                lines.append(())
            lines += self._kinds[child.type](child, width)
        return lines

    def _text(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        return wrap(_inline(node, self._base), width)

    def _heading(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        return wrap(_inline(node, _joined(self._base, "heading")), width)

    def _item(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        # Bullets are all "-": "•" and "·" are two cells wide in some terminals.
        marker = Span(f"{node.info}{node.markup} " if node.info else "- ", "bullet")
        room = width - len(marker.text)
        if room < _NARROWEST:
            return wrap([marker], width) + self.children(node, width)
        return _prefixed(self.children(node, room) or [()], marker, Span(" " * len(marker.text)))

    def _quote(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        outer, self._base = self._base, _joined(self._base, "quote")
        mark = Span("> ", "quote")
        narrow = width - len(mark.text) < _NARROWEST
        lines = self.children(node, width if narrow else width - len(mark.text))
        self._base = outer
        return lines if narrow else _prefixed(lines or [()], mark, mark)

    def _code(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        lines = fold(clean(node.content).rstrip("\n"), width, "code")
        # The name of a language says nothing that the code does not; a misplaced sentence is text.
        info = clean(node.info).strip()
        return lines if _LANGUAGE.fullmatch(info) else wrap([Span(info, "dim")], width) + lines

    def _rule(self, _node: SyntaxTreeNode, width: int) -> list[Line]:
        return [(Span("-" * width, "dim"),)]

    def _table(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        rows = [row for part in node.children for row in part.children]
        columns = rows[0].children
        first, last = node.map or (0, 0)
        for line in self._source[first:last]:
            # Cells beyond the last column would vanish.
            if len(_COLUMN_END.findall(line.strip(" >").strip("|"))) >= len(columns):
                raise _ShownAsWrittenError
        header, *body = [[_one_line(_inline(cell, self._base)) for cell in row.children] for row in rows]
        aligns = [str(column.attrs.get("style", "")).removeprefix("text-align:") for column in columns]
        return table_lines(header, body, aligns, width)


def _inline(node: SyntaxTreeNode, base: str) -> list[Span]:
    """The spans of a node that holds text."""
    spans: list[Span] = []
    styles = [base]
    link = 0  # where the open link's text begins
    target = ""
    holder = node.children[0].token if node.children else None
    for token in (holder and holder.children) or ():
        if token.type == "link_open":
            link, target = len(spans), str(token.attrs.get("href", ""))
        if token.type in _INLINE:
            styles.append(_joined(styles[-1], _INLINE[token.type]))
        elif token.nesting < 0:
            styles.pop()
            if token.type == "link_close":
                spans += _target("".join(span.text for span in spans[link:]), target)
        elif token.type in ("softbreak", "hardbreak"):
            spans.append(Span("\n"))
        else:
            spans += _token(token, styles[-1], after_break=bool(spans) and spans[-1].text == "\n")
    return spans


def _token(token: Token, style: str, after_break: bool) -> list[Span]:
    if token.type == "code_inline":
        return [Span(clean(token.content), _joined(style, "code"))]
    if token.type == "image":
        return [Span(clean(token.content) or _readable(str(token.attrs.get("src", ""))), style)]
    text = clean(token.content)
    # The parser takes a Chinese indent from a paragraph's first line; the others follow it.
    text = text.lstrip("\u3000") if after_break else text
    return [Span(text, style)] if text else []


def _target(text: str, target: str) -> list[Span]:
    """A link's address, where its text does not already say it."""
    readable = _readable(target)
    said = text in (target, readable) or f"mailto:{text}" in (target, readable)
    return [] if said or not readable else [Span(f" ({readable})", "dim")]


def _readable(target: str) -> str:
    return clean(_parser().normalizeLinkText(target)).replace("\n", " ")


def _joined(*styles: str) -> str:
    """Style names together, each once."""
    return " ".join(dict.fromkeys(name for style in styles for name in style.split()))


def _one_line(spans: Sequence[Span]) -> list[Span]:
    return [Span(span.text.replace("\n", " "), span.style) for span in spans]


def _prefixed(lines: Sequence[Line], first: Span, others: Span) -> list[Line]:
    """The lines behind a marker; blank lines get no spaces, but they do get a quote's mark."""
    result: list[Line] = []
    for line in lines:
        prefix = others if result else first
        if line or not result or prefix.text.strip():
            result.append((prefix, *line))
        else:
            result.append(())
    return result
