"""A Hugging Face tokenizer in GGUF's form, or the reason why it has none there.

GGUF knows no regular expressions: it names a pre-tokenizer, and the runtime has the expression. So
only tokenizers whose way of cutting is known by name can be written. Two kinds are:

- byte-level BPE (Qwen, Llama 3, SmolLM2, GPT-2): tokens and merges as they are.
- sentencepiece's BPE with bytes for what it lacks (Gemma): tokens with scores. A runtime joins the
  neighbours whose joined token scores best, so a token's score is minus the rank of its merges.
  That is the same only if the merges of one token stand together, and no other pair makes a token;
  both are checked.

Source: llama.cpp, convert_hf_to_gguf.py and src/llama-vocab.cpp.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.errors import ExportError

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types, as gguf.TokenType numbers them."""
SPACE = "▁"

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# By the expression, and by whether a whole word that is a token is taken without merging.
_SPLITS: Mapping[tuple[str, bool], str] = {
    (_WORDS.replace("NUMBER", r"\p{N}"), False): "qwen2",
    (_WORDS.replace("NUMBER", r"\p{N}{1,3}"), True): "llama-bpe",
    (_WORDS.replace("NUMBER", r"\p{N}{1,3}"), False): "smaug-bpe",
}
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Vocabulary:
    """What GGUF says of a tokenizer; one kind has `scores`, the other `merges`."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None


def vocabulary(
    tokenizer: PreTrainedTokenizerBase, rows: int, said: Collection[str] = ()
) -> Vocabulary:
    """The vocabulary of `tokenizer` for a model with `rows` embeddings.

    said: special tokens that a student writes as part of its answer; a runtime shows them, while
        it swallows others.

    Raises ExportError for a tokenizer that GGUF cannot express.
    """
    described = _described(tokenizer)
    pieces, added = _pieces(described, rows)
    model = described["model"]
    if _is_byte_level(described):
        pre = _pre_tokenizer(described)
        types = [_type(text, added, said) for text in pieces]
        return Vocabulary("gpt2", pre, pieces, types, None, _merges(model))
    if _is_sentencepiece(described):
        scores = _scores(pieces, model, added)
        types = [_type(text, added, said, model.get("unk_token")) for text in pieces]
        return Vocabulary("llama", "default", pieces, types, scores, None)
    raise _unknown("its tokenizer is neither byte-level BPE nor Gemma's")


def write_vocabulary(
    writer: GGUFWriter,
    found: Vocabulary,
    tokenizer: PreTrainedTokenizerBase,
    *,
    ends: Sequence[int],
    add_bos: bool,
) -> None:
    """Add the vocabulary and the ids of its special tokens to a GGUF file.

    ends: the tokens that end a turn. GGUF has places for three, all of which stop a runtime.
    """
    writer.add_tokenizer_model(found.model)
    writer.add_tokenizer_pre(found.pre)
    writer.add_token_list(found.tokens)
    if found.scores is not None:
        writer.add_token_scores(found.scores)
        # Nothing of the prompt may be made different from what was trained.
        writer.add_add_space_prefix(False)
    writer.add_token_types(found.types)
    if found.merges is not None:
        writer.add_token_merges(found.merges)
    places = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, token in zip(places, _ordered(ends, tokenizer.eos_token_id), strict=False):
        add(token)
    known: Any = tokenizer
    for add, token in (
        (writer.add_bos_token_id, known.bos_token_id),
        (writer.add_pad_token_id, known.pad_token_id),
        (writer.add_unk_token_id, known.unk_token_id),
    ):
        if token is not None:
            add(token)
    writer.add_add_bos_token(add_bos)
    writer.add_add_eos_token(False)


def _ordered(ends: Sequence[int], eos: Any) -> list[int]:
    """The tokens that end a turn, the tokenizer's own end first."""
    return sorted(dict.fromkeys(ends), key=lambda token: token != eos)


def _described(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _unknown("its tokenizer has no tokenizer.json")
    described: dict[str, Any] = json.loads(backend.to_str())
    if described["model"].get("type") != "BPE":
        raise _unknown(f"its tokenizer is {described['model'].get('type')}, and only BPE is known")
    return described


def _pieces(described: dict[str, Any], rows: int) -> tuple[list[str], dict[str, bool]]:
    """Every token in the order of its id, and of those outside merging whether each is special."""
    by_id = {token: text for text, token in described["model"]["vocab"].items()}
    added: dict[str, bool] = {}
    for one in described["added_tokens"]:
        if one["lstrip"] or one["rstrip"] or one["single_word"]:
            raise _unknown(f"its token {one['content']!r} takes the blanks beside it")
        by_id[one["id"]] = one["content"]
        added[one["content"]] = one["special"]
    if max(by_id) >= rows:
        raise _unknown(f"its tokenizer has {max(by_id) + 1} tokens, and the model {rows} rows")
    pieces = [by_id.get(token, f"[PAD{token}]") for token in range(rows)]
    if len(set(pieces)) < len(pieces):
        raise _unknown("two of its tokens are written the same")
    return pieces, added


def _type(
    text: str, added: Mapping[str, bool], said: Collection[str], unknown: str | None = None
) -> int:
    if text == unknown:
        return UNKNOWN
    if text in added:
        return CONTROL if added[text] and text not in said else USER_DEFINED
    if unknown is not None and _BYTE_TOKEN.fullmatch(text):
        return BYTE
    return UNUSED if re.fullmatch(r"\[PAD\d+\]", text) else NORMAL


def _parts(step: Any, key: str) -> list[dict[str, Any]]:
    """The steps of a sequence, or the one step, or none."""
    if step is None:
        return []
    found: list[dict[str, Any]] = step[key] if step["type"] == "Sequence" else [step]
    return found


def _is_byte_level(described: dict[str, Any]) -> bool:
    decoder = described["decoder"]
    return decoder is not None and decoder["type"] == "ByteLevel"


def _is_sentencepiece(described: dict[str, Any]) -> bool:
    """Gemma's: blanks become ▁ and nothing is put in front; bytes stand for what has no token."""
    steps = _parts(described["normalizer"], "normalizers")
    replaced = [(step["type"], step.get("pattern"), step.get("content")) for step in steps]
    cuts = _parts(described["pre_tokenizer"], "pretokenizers")
    # Once blanks are ▁, a cut at blanks cuts nothing.
    harmless = all(c["type"] == "Split" and c["pattern"] == {"String": " "} for c in cuts)
    return (
        replaced == [("Replace", {"String": " "}, SPACE)]
        and bool(described["model"].get("byte_fallback"))
        and harmless
    )


def _pre_tokenizer(described: dict[str, Any]) -> str:
    """The name under which runtimes know how a byte-level tokenizer cuts text."""
    steps = _parts(described["normalizer"], "normalizers")
    # NFC changes only text that is not composed; runtimes leave it out for Qwen as well.
    if odd := next((step["type"] for step in steps if step["type"] != "NFC"), None):
        raise _unknown(f"its tokenizer changes text ({odd}), which GGUF cannot say")
    match _parts(described["pre_tokenizer"], "pretokenizers"):
        case [{"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated"}, last] if (
            _only_bytes(last, use_regex=False)
        ):
            name = _SPLITS.get((words, bool(described["model"].get("ignore_merges"))))
            if name:
                return name
        case [{"type": "Digits", "individual_digits": True}, last] if _only_bytes(last):
            return "smollm"
        case [last] if _only_bytes(last):
            return "gpt-2"
    raise _unknown("its tokenizer cuts text in a way that has no name in GGUF")


def _only_bytes(step: dict[str, Any], use_regex: bool = True) -> bool:
    plain = step["type"] == "ByteLevel" and not step["add_prefix_space"]
    return plain and step["use_regex"] == use_regex


def _merges(model: dict[str, Any]) -> list[str]:
    return [" ".join(pair) for pair in _pairs(model)]


def _pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    merges = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    return [(left, right) for left, right in merges]


def _scores(pieces: Sequence[str], model: dict[str, Any], added: Mapping[str, bool]) -> list[float]:
    """Minus the rank of each token's merges; what no merge makes is never joined, and scores 0."""
    pairs = _pairs(model)
    ranks: dict[str, int] = {}
    before = None
    for at, (left, right) in enumerate(pairs):
        joined = left + right
        if joined != before and joined in ranks:
            raise _unknown(f"the merges that make {joined!r} do not stand together")
        ranks.setdefault(joined, at)
        before = joined
    known, listed = set(model["vocab"]), set(pairs)
    for text in pieces:
        if text not in added and (odd := _other_pair(text, known, listed)):
            raise _unknown(f"{odd} would be joined to {text!r} by a runtime, and are not here")
    return [-float(ranks.get(text, 0)) for text in pieces]


def _other_pair(
    text: str, known: Collection[str], listed: Collection[tuple[str, str]]
) -> tuple[str, str] | None:
    for at in range(1, len(text)):
        pair = (text[:at], text[at:])
        if pair[0] in known and pair[1] in known and pair not in listed:
            return pair
    return None


def _unknown(cause: str) -> ExportError:
    return ExportError(
        f"cannot be written as GGUF: {cause}",
        hint="export it with --format hf, which takes every student",
    )
