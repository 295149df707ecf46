"""The shipped pipeline's tokenizer, built from the captions that the pipeline is trained on."""

from collections import Counter
from itertools import pairwise

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from experiments.editor.clips import CLIPS, LOOKS, caption

_START, _END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(max_tokens: int = 12) -> CLIPTokenizer:
    """A CLIP tokenizer whose vocabulary is every byte and the words of the clips' captions, one token a word.

    Any other text is spelled in bytes and in pieces of those words, so no text is unknown.
    """
    words = Counter(word for clip in CLIPS.values() for look in LOOKS for word in caption(clip.subject, look).split())
    letters = list(bytes_to_unicode().values())
    merges = _learn_merges(words)
    pieces = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *(left + right for left, right in merges),
        _START,
        _END,
    ]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_tokens)


def _learn_merges(words: Counter[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, until every word is one token."""
    spelled = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in spelled.items():
            for pair in pairwise(pieces):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        # The pair itself breaks ties, so that the vocabulary does not depend on the order of counting.
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        spelled = {word: _merge(pieces, best) for word, pieces in spelled.items()}


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
