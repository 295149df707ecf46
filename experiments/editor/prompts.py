"""How many tokens each word of a prompt costs: a text encoder takes so many, and unknown words are spelled out."""

from typing import Protocol

from experiments.errors import UserError

MOST_WORDS = 40
"""Words whose tokens a message lists."""


class Tokenizer(Protocol):
    """What is needed of a CLIP tokenizer."""

    model_max_length: int

    def __call__(self, text: str, *, verbose: bool) -> object:
        """An object whose `input_ids` are the tokens, with one for the start and one for the end."""


def token_costs(tokenizer: Tokenizer, text: str) -> list[tuple[str, int]]:
    """(word, tokens) for every word of a text, in order. Words are what stands between spaces."""
    return [(word, _count(tokenizer, word) - _frame(tokenizer)) for word in text.split()]


def require_prompt(tokenizer: Tokenizer, text: str) -> None:
    """Refuse a prompt that the text encoder would have to cut.

    Raises:
        UserError: no string, not encodable as UTF-8, or longer than the text encoder takes; the message shows what each
            word costs.
    """
    if not isinstance(text, str):
        raise UserError(f"the prompt is a {type(text).__name__}", limit="expected a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"the prompt {text!r} has a byte at {error.start} that is no UTF-8",
            remedy="write it again in a terminal that is set to UTF-8",
        ) from None
    length = _count(tokenizer, text)
    if length <= tokenizer.model_max_length:
        return
    # A book takes no longer to refuse than a sentence.
    costs = token_costs(tokenizer, " ".join(text.split()[:MOST_WORDS]))
    words = ", ".join(f"{word} {tokens}" for word, tokens in costs)
    remedy = "shorten it"
    if any(tokens > 1 for _, tokens in costs):
        remedy += (
            f"; a word that the tokenizer does not know is spelled out, the dearest is {max(costs, key=_price)[0]!r}"
        )
    more = ", .." if len(costs) == MOST_WORDS else ""
    raise UserError(
        f"the prompt {text[:200]!r} has {length} tokens and the text encoder takes {tokenizer.model_max_length}",
        limit=f"{_frame(tokenizer)} are start and end, the words take {words}{more}",
        remedy=remedy,
    )


def _price(cost: tuple[str, int]) -> int:
    return cost[1]


def _count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer(text, verbose=False).input_ids)


def _frame(tokenizer: Tokenizer) -> int:
    """The tokens of a text without words."""
    return _count(tokenizer, "")
