"""A lossless tokenizer over MiniLM's WordPiece vocabulary, for writing as well as reading.

BERT's own tokenizer throws blanks away and cannot write "node.js" or "c++" back. This one keeps
MiniLM's token ids and changes only how text is cut and put together:

- A piece stands for a word with the blank before it (`Ġmeal`, MiniLM's "meal"), or for what is
  glued to the piece before (`##s`, written `s`). No two ids share an embedding.
- Text is lower-cased and loses Latin, Greek and Cyrillic accents, as MiniLM was trained. That is
  all that is lost: text is cut as UTF-8 bytes, and bytes that no piece covers have ids of their
  own among MiniLM's unused ones, so nothing becomes [UNK].
- The first word of a text, and a word behind a line break, bracket, quote, hyphen or slash, is cut
  as MiniLM read it: as a word of its own. A blank put in there is taken out again by the decoder.
- Markers, and the starts of calls of the workflow's tools, are single tokens.
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
BLANK = "Ġ"
"""A blank in the byte alphabet."""

_STARTS_WORD = "\n(\"'-/_#@&{>"
"""Characters behind which a word is a word of its own, although no blank stands there."""

_OPENERS = "([{<$#@&+=~*"
"""Marks that mostly follow a blank; all others mostly follow a word."""

_ACCENTS = "[\u0300-\u036f]"
_LONGEST_PIECE = 48
_ROLES = ("user", "model", "developer")


def load_tokenizer(vocabulary: Path, tools: Sequence[Tool]) -> PreTrainedTokenizerFast:
    """The tokenizer over MiniLM's vocab.txt, with single tokens for calls of `tools`."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_tokenizer(read_pieces(vocabulary), phrases(tools)),
        pad_token=PAD,
        eos_token=TURN[1],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def read_pieces(vocabulary: Path) -> list[str]:
    """The pieces of a vocab.txt; a piece's place is its token id."""
    return read_text(vocabulary).removesuffix("\n").split("\n")


def phrases(tools: Iterable[Tool]) -> list[str]:
    """The strings that are one token each: markers, heads of turns, starts of calls, arguments.

    Each ends in a character behind which a word starts, or is followed by another of them.
    """
    found = [*MARKERS]
    for role in _ROLES:
        found += turn_heads(role)
    found.append(f"{ESCAPE}}}{CALL[1]}")
    for tool in tools:
        found.append(f"{CALL[0]}call:{tool.name}{{")
        properties = tool.parameters.get("properties")
        names = properties if isinstance(properties, dict) else ()
        found += [f"{name}:{ESCAPE}" for name in names]
    # The decoder works on bytes written as characters, where others would be mistaken for bytes.
    return [text for text in dict.fromkeys(found) if text.isascii()]


def turn_heads(role: str) -> tuple[str, str]:
    """What opens a turn of `role`: the first of a conversation, and a later one."""
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
    # Pieces of bounded length, as WordPiece's time is the cube of it.
    pattern = Regex(f"{BLANK}?[^{BLANK}]{{1,{_LONGEST_PIECE}}}|{BLANK}")
    tokenizer.pre_tokenizer = Split(pattern, "isolated")
    marks = "".join(f"\\{mark}" for mark in _STARTS_WORD if mark != "\n")
    put_in = Regex(f"(?:(?<=[{_letters(bytes([10]))}{marks}])|\\A){BLANK}")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\n", _letters(b"\n")),
            decoders.Fuse(),
            decoders.Replace(put_in, ""),
            decoders.ByteLevel(),
        ]
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    return tokenizer


def _vocabulary(pieces: Sequence[str], added: Sequence[str]) -> dict[str, int]:
    """Each piece, in the byte alphabet, with its row of MiniLM's embeddings."""
    row = {piece: index for index, piece in enumerate(pieces)}
    vocabulary = {PAD: row["[PAD]"], UNKNOWN: row["[UNK]"]}
    for piece, index in row.items():
        if not piece.startswith("[") or len(piece) == 1:
            vocabulary[_written(piece, row)] = index
    spare = spare_rows(pieces)
    missing = [letter for letter in BYTES if letter not in vocabulary]
    vocabulary.update({text: next(spare) for text in (*missing, *added)})
    return vocabulary


def spare_rows(pieces: Sequence[str]) -> Iterator[int]:
    """The rows that MiniLM never used, in order."""
    return (index for index, piece in enumerate(pieces) if piece.startswith("[unused"))


def _written(piece: str, row: dict[str, int]) -> str:
    """How the text that a piece of MiniLM's stands for is written in the byte alphabet."""
    glued = piece.startswith("##") and len(piece) > 2
    text = piece[2:] if glued else piece
    # MiniLM saw a mark behind a word as a word of its own, and its glued form never.
    if len(text) == 1 and _follows_word(text) and f"##{text}" in row:
        glued = not glued
    return _letters(text.encode()) if glued else BLANK + _letters(text.encode())


def _follows_word(mark: str) -> bool:
    ideograph = "\u4e00" <= mark <= "\u9fff"
    return ideograph or (unicodedata.category(mark)[0] in "PS" and mark not in _OPENERS)


def _byte_letters() -> list[str]:
    """A printable letter for each byte: the byte alphabet of GPT-2 and its heirs."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in plain}
    others = [byte for byte in range(256) if byte not in letters]
    letters.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return [letters[byte] for byte in range(256)]


BYTES = _byte_letters()


def _letters(text: bytes) -> str:
    return "".join(BYTES[byte] for byte in text)
