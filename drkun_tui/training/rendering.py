"""From a dialogue to the text and the tokens that a model is trained on.

The prompt is rendered by the very code that renders it when the model is asked, and the response is written
as the model would have to write it; so what is trained is what is used. A response does not pass through the
chat template, because templates of reasoning models take the reasoning out of an assistant's message.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from dataclasses import dataclass
from typing import Any, Protocol

from drkun_tui.engine.chat_template import CHATML, NAMED, ChatTemplate, carry_on
from drkun_tui.engine.protocol import ChatMessage, Partial, Role
from drkun_tui.engine.thinking import opened_by, split, start_state

IGNORED = -100
"""The label of a token that the loss is not computed on, as PyTorch's cross entropy has it."""


class Tokenizer(Protocol):
    """What is wanted of a Transformers tokenizer."""

    chat_template: str | None
    bos_token: str | None
    eos_token: str | None

    def __call__(self, text: list[str], *, add_special_tokens: bool) -> Any:
        """``input_ids`` of each text."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of some tokens, special ones too."""
        ...

    def get_added_vocab(self) -> dict[str, int]:
        """The tokens that stand for themselves, special ones among them."""
        ...


@dataclass(frozen=True, slots=True)
class Example:
    """One dialogue."""

    question: str
    answer: str
    reasoning: str = ""
    system: str = ""
    history: str = ""
    """JSON: the pairs of question and answer before this one; "" when there are none."""

    def messages(self) -> list[ChatMessage]:
        """Everything before the answer."""
        told: list[tuple[Role, str]] = [("system", self.system)] if self.system else []
        for question, answer in json.loads(self.history) if self.history else []:
            told += [("user", question), ("assistant", answer)]
        return [ChatMessage(role, text) for role, text in (*told, ("user", self.question))]


@dataclass(frozen=True, slots=True)
class Rendered:
    """An example as text; only the response is trained on."""

    prompt: str
    response: str


def _plain(text: str) -> str:
    """As many tokenizers have it: they compose characters (NFC), and give some texts back in other ones."""
    return unicodedata.normalize("NFC", text)


class Renderer:
    """Renders examples for one model.

    Args:
        tokenizer: the model's.
        template: ``chat``, or a key of `drkun_tui.engine.chat_template.NAMED`.

    Raises:
        EngineError: the template is broken.
    """

    def __init__(self, tokenizer: Tokenizer, template: str = "chat") -> None:
        self._tokenizer = tokenizer
        own = tokenizer.chat_template or CHATML
        self._template = ChatTemplate(
            own if template == "chat" else NAMED[template],
            bos=tokenizer.bos_token or "",
            eos=tokenizer.eos_token or "",
        )
        self.end_of_turn = self._end_of_turn()

    def _end_of_turn(self) -> str:
        """What the model must learn to write when it has answered: the special token that its template puts
        behind an answer."""
        between = self._template.between_turns()
        places = {
            between.find(token): token
            for token in (*self._tokenizer.get_added_vocab(), self._tokenizer.eos_token or "")
            if token and between[: between.find(token)].strip() == "" and token in between
        }
        return places[min(places)] if places else self._tokenizer.eos_token or ""

    def render(self, example: Example) -> Rendered:
        """The text of an example.

        Raises:
            EngineError: the template refuses it.
        """
        # Without reasoning it is asked as it is when thinking is turned off.
        prompt = self._template.render(example.messages(), think=bool(example.reasoning))
        response = carry_on(prompt, Partial(example.reasoning, example.answer))
        return Rendered(prompt, response + self.end_of_turn)

    def keeps_everything(self, example: Example, ids: list[int]) -> bool:
        """Do the tokens still hold the whole reasoning and the whole answer, apart?"""
        text = _plain(self._tokenizer.decode(ids))
        prompt = _plain(self.render(example).prompt)
        if not text.startswith(prompt):
            question = _plain(example.question)
            prompt = text[: text.rfind(question) + len(question)]
        rest = text[len(prompt) :].removesuffix(self.end_of_turn)
        told = split(rest, start_state(prompt), opened_by(prompt))
        return (told.thinking.strip(), told.answer.strip()) == (
            _plain(example.reasoning).strip(),
            _plain(example.answer).strip(),
        )

    def segments(self, ids: list[int], labels: list[int]) -> list[tuple[str, int, bool]]:
        """An example decoded in the stretches that are trained on and those that are not: text, number of
        tokens, trained or not."""
        pairs = zip(ids, labels, strict=True)
        groups = itertools.groupby(pairs, key=lambda pair: pair[1] != IGNORED)
        found = [([token for token, _ in group], trained) for trained, group in groups]
        return [(self._tokenizer.decode(tokens), len(tokens), trained) for tokens, trained in found]

    def tokenize(self, examples: list[Example]) -> list[tuple[list[int], list[int]]]:
        """Tokens and labels of each; the labels of prompts are `IGNORED`.

        Prompt and response are tokenized apart, as they are when the model answers.
        """
        texts = [self.render(example) for example in examples]
        prompts = self._tokenizer([text.prompt for text in texts], add_special_tokens=False)["input_ids"]
        responses = self._tokenizer([text.response for text in texts], add_special_tokens=False)["input_ids"]
        return [
            (prompt + response, [IGNORED] * len(prompt) + response)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
