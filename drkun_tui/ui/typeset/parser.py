"""The Markdown parser, set up for what chat models write in Chinese. Imported on first use."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar, isWhiteSpace
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token
from markdown_it.utils import EnvType

from drkun_tui.ui.typeset.cells import width_of

_MARK = re.compile(r"[*_~`\[\]<>&\\]")

_MOST_MARKS = 2000
"""The time for a paragraph can grow with the square of its marks: beyond this it is plain text."""


def make() -> MarkdownIt:
    """CommonMark with tables and strikethrough; raw HTML is text."""
    parser = MarkdownIt("zero")
    parser.inline = _Inline()
    parser.configure("commonmark", options_update={"html": False})
    parser.enable(["table", "strikethrough"])
    # A link's definition would vanish, for blocks are parsed one by one. And "---" below a line is
    # meant as a rule: as an underline it would turn the whole paragraph into a heading.
    parser.disable(["reference", "lheading"])
    return parser


class _State(StateInline):
    """Finds emphasis also where it touches Chinese text.

    CommonMark wants white space or punctuation outside a mark that has punctuation inside, which
    Chinese does not have: ``**注意：**请`` would show its stars. Here full-width punctuation counts as
    letters do, and a wide character outside is as good as white space.
    """

    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:  # noqa: N802, N803 (the parser's names)
        marker = self.src[start]
        end = start
        while end < self.posMax and self.src[end] == marker:
            end += 1
        before = self.src[start - 1] if start else " "
        after = self.src[end] if end < self.posMax else " "
        left = not _space(after) and (not _punctuation(after) or _outside(before))
        right = not _space(before) and (not _punctuation(before) or _outside(after))
        opens = left and (canSplitWord or not right or _punctuation(before))
        closes = right and (canSplitWord or not left or _punctuation(after))
        return Scanned(opens, closes, end - start)


class _Inline(ParserInline):
    def parse(self, src: str, md: MarkdownIt, env: EnvType, tokens: list[Token]) -> list[Token]:
        """As the parent's, with the state above."""
        if len(_MARK.findall(src)) > _MOST_MARKS:
            tokens.append(Token("text", "", 0, content=src))
            return tokens
        state = _State(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


def _space(char: str) -> bool:
    return isWhiteSpace(ord(char))


def _wide(char: str) -> bool:
    return width_of[char] == 2


def _punctuation(char: str) -> bool:
    return not _wide(char) and (isMdAsciiPunct(ord(char)) or isPunctChar(char))


def _outside(char: str) -> bool:
    return _space(char) or _wide(char) or _punctuation(char)
