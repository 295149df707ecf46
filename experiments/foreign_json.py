"""JSON that somebody else may have written: read within limits, validated by type before use, and free of control
characters."""

import unicodedata
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from experiments.errors import UserError, printable

MOST_BYTES = 64 * 2**20
MOST_DEPTH = 64
_Type = TypeVar("_Type")
_SHOWN = {"\n", "\t"}
# As in errors.printable, but for the two that a page shows as space.
_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def read_json(path: Path, remedy: str, *, most_bytes: int = MOST_BYTES) -> Any:
    """The content of a JSON file, every control character of its texts replaced by U+FFFD.

    Args:
        path: the file.
        remedy: what to do where it is no such file.
        most_bytes: a larger file is refused before it is read.

    Raises:
        UserError: it is too large, no JSON in UTF-8, nested too deeply, or holds a number that no float can.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise UserError(f"{path} is no regular file", remedy=remedy)
    if size > most_bytes:
        raise UserError(f"{path} has {size} bytes", limit=f"at most {most_bytes} are read", remedy=remedy)
    content = path.read_bytes()
    try:
        return _cleaned(msgspec.json.decode(content), 0)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is no JSON ({printable(str(error))})", remedy=remedy) from None


def require(value: Any, kind: type[_Type] | Any, path: Path, remedy: str) -> Any:
    """The value itself, if it has the form that a msgspec type describes.

    Raises:
        UserError: it has not; the message says which key has what, and what is expected.
    """
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {printable(str(error))}", remedy=remedy) from None
    return value


def _cleaned(value: Any, depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise ValueError(f"nested more than {MOST_DEPTH} deep")
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_cleaned(entry, depth + 1) for entry in value]
    if isinstance(value, dict):
        return {clean_text(name): _cleaned(entry, depth + 1) for name, entry in value.items()}
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"a whole number of {len(str(value))} digits is out of range")
    return value


def clean_text(text: str) -> str:
    """A text without what a terminal or a page would obey instead of showing."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter if letter in _SHOWN or unicodedata.category(letter) not in _OBEYED else "\ufffd" for letter in text
    )
