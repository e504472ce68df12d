"""A tokenizer over MiniLM's WordPiece vocabulary whose decoding gives the text back.

BERT's own tokenizer drops spaces and cannot decode to "node.js" or "c++". This one keeps MiniLM's
token ids and changes only how text is split and joined:

- A piece is a word with the space before it (`Ġmeal`, MiniLM's "meal"), or continues the piece
  before it (`##s`, here `s`). No two ids share an embedding.
- Text is lower-cased and loses Latin, Greek and Cyrillic accents, as in MiniLM's pretraining.
  Nothing else is lost: text is split as UTF-8 bytes, and bytes that no piece covers have ids among
  MiniLM's unused ones, so nothing becomes [UNK].
- The first word of a text, and a word after a line break, bracket, quote, hyphen or slash, is a
  word of its own, as in MiniLM's pretraining. The normalizer inserts a space there, which the
  decoder removes.
- Special markers, and the starts of calls of the workflow's tools, are single tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.files import read_text
from distill.render.functiongemma import CALL, ESCAPE, MARKERS, TURN
from distill.workflow.model import Tool

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN = "<pad>", "<unk>"
SPACE = "Ġ"
"""A space in the byte alphabet."""

_STARTS_WORD = "\n(\"'-/_#@&{>"
"""Characters after which a word is a word of its own, although there is no space."""

_OPENERS = "([{<$#@&+=~*"
"""Punctuation that mostly follows a space; all other mostly follows a word."""

_ACCENTS = "[\u0300-\u036f]"
_MAX_PIECE_LENGTH = 48
_ROLES = ("user", "model", "developer")


def load_tokenizer(vocabulary: Path, tools: Sequence[Tool]) -> PreTrainedTokenizerFast:
    """The tokenizer over MiniLM's vocab.txt, with single tokens for calls of `tools`."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_tokenizer(read_vocabulary(vocabulary), added_tokens(tools)),
        pad_token=PAD,
        eos_token=TURN[1],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def read_vocabulary(vocabulary: Path) -> list[str]:
    """The pieces of a vocab.txt, by token id."""
    return read_text(vocabulary).removesuffix("\n").split("\n")


def added_tokens(tools: Iterable[Tool]) -> list[str]:
    """The strings that are one token each: markers, and the starts of turns, calls and arguments.

    Each ends in a character after which a word starts, or is followed by another of them.
    """
    found = [*MARKERS]
    for role in _ROLES:
        found += turn_starts(role)
    found.append(f"{ESCAPE}}}{CALL[1]}")
    for tool in tools:
        found.append(f"{CALL[0]}call:{tool.name}{{")
        properties = tool.parameters.get("properties")
        names = properties if isinstance(properties, dict) else ()
        found += [f"{name}:{ESCAPE}" for name in names]
    # The decoder works in the byte alphabet, which has a different meaning for other characters.
    return [text for text in dict.fromkeys(found) if text.isascii()]


def turn_starts(role: str) -> tuple[str, str]:
    """The start of a turn of `role`: the first of a conversation, and a later one."""
    return f"{TURN[0]}{role}\n", f"\n{TURN[0]}{role}\n"


def _tokenizer(pieces: Sequence[str], added: Sequence[str]) -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers.pre_tokenizers import Split

    model = models.WordPiece(
        vocab=_vocabulary(pieces, added), unk_token=UNKNOWN, continuing_subword_prefix=""
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.NFD(),
            normalizers.Replace(Regex(_ACCENTS), ""),
            normalizers.NFC(),
            *(normalizers.Replace(mark, f"{mark} ") for mark in _STARTS_WORD),
            normalizers.Prepend(" "),
            normalizers.ByteLevel(),
        ]
    )
    # Pieces of bounded length, as WordPiece takes cubic time.
    pattern = Regex(f"{SPACE}?[^{SPACE}]{{1,{_MAX_PIECE_LENGTH}}}|{SPACE}")
    tokenizer.pre_tokenizer = Split(pattern, "isolated")
    marks = "".join(f"\\{mark}" for mark in _STARTS_WORD if mark != "\n")
    inserted_space = Regex(f"(?:(?<=[{_letters(bytes([10]))}{marks}])|\\A){SPACE}")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\n", _letters(b"\n")),
            decoders.Fuse(),
            decoders.Replace(inserted_space, ""),
            decoders.ByteLevel(),
        ]
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    return tokenizer


def _vocabulary(pieces: Sequence[str], added: Sequence[str]) -> dict[str, int]:
    """Each piece, in the byte alphabet, with its token id in MiniLM."""
    ids = {piece: index for index, piece in enumerate(pieces)}
    vocabulary = {PAD: ids["[PAD]"], UNKNOWN: ids["[UNK]"]}
    for piece, index in ids.items():
        if not piece.startswith("[") or len(piece) == 1:
            vocabulary[_to_byte_alphabet(piece, ids)] = index
    unused = unused_ids(pieces)
    missing = [letter for letter in BYTES if letter not in vocabulary]
    vocabulary.update({text: next(unused) for text in (*missing, *added)})
    return vocabulary


def unused_ids(pieces: Sequence[str]) -> Iterator[int]:
    """The token ids that MiniLM never used, in order."""
    return (index for index, piece in enumerate(pieces) if piece.startswith("[unused"))


def _to_byte_alphabet(piece: str, ids: dict[str, int]) -> str:
    """The text of a piece of MiniLM's in the byte alphabet, with the space before a word."""
    continues = piece.startswith("##") and len(piece) > 2
    text = piece[2:] if continues else piece
    # MiniLM saw punctuation after a word as a word of its own, and its ## form never.
    if len(text) == 1 and _follows_word(text) and f"##{text}" in ids:
        continues = not continues
    return _letters(text.encode()) if continues else SPACE + _letters(text.encode())


def _follows_word(character: str) -> bool:
    if "\u4e00" <= character <= "\u9fff":  # CJK ideographs
        return True
    return unicodedata.category(character)[0] in "PS" and character not in _OPENERS


def _byte_letters() -> list[str]:
    """A printable character for each byte: GPT-2's byte alphabet."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in plain}
    others = [byte for byte in range(256) if byte not in letters]
    letters.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return [letters[byte] for byte in range(256)]


BYTES = _byte_letters()


def _letters(text: bytes) -> str:
    return "".join(BYTES[byte] for byte in text)
