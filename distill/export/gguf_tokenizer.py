"""A Hugging Face tokenizer in GGUF's form, or the reason why it has none.

GGUF stores no regular expressions: it names a pre-tokenizer, whose expression is in the runtime. So
only tokenizers whose pre-tokenizer has a name can be written. Two kinds are:

- byte-level BPE (Qwen, Llama 3, SmolLM2, GPT-2): tokens and merges, unchanged.
- SentencePiece BPE with byte fallback (Gemma): tokens with scores. A runtime merges the neighbours
  whose merged token has the highest score, so a token's score is minus the rank of its merges. The
  result is the same only if the merges that make one token are consecutive, and if no other pair
  makes a token; both are checked.

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
"""Token types, with the values of gguf.TokenType."""
SPACE = "▁"

_WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# By the expression, and by `ignore_merges`: whether a word that is a token needs no merges.
_PRE_TOKENIZERS: Mapping[tuple[str, bool], str] = {
    (_WORD_PATTERN.replace("NUMBER", r"\p{N}"), False): "qwen2",
    (_WORD_PATTERN.replace("NUMBER", r"\p{N}{1,3}"), True): "llama-bpe",
    (_WORD_PATTERN.replace("NUMBER", r"\p{N}{1,3}"), False): "smaug-bpe",
}
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer in GGUF; byte-level BPE has `merges`, SentencePiece has `scores`."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None


def gguf_vocabulary(
    tokenizer: PreTrainedTokenizerBase, rows: int, answer_markers: Collection[str] = ()
) -> Vocabulary:
    """The vocabulary of `tokenizer` for a model with `rows` embeddings.

    answer_markers: special tokens that are part of an answer: a runtime prints them, and no others

    Raises ExportError for a tokenizer that GGUF cannot express.
    """
    definition = _tokenizer_json(tokenizer)
    tokens, added = _tokens(definition, rows)
    model, decoder = definition["model"], definition["decoder"]
    if decoder is not None and decoder["type"] == "ByteLevel":
        pre = _pre_tokenizer(definition)
        types = [_token_type(token, added, answer_markers) for token in tokens]
        merges = [" ".join(pair) for pair in _merge_pairs(model)]
        return Vocabulary("gpt2", pre, tokens, types, None, merges)
    if _is_sentencepiece(definition):
        scores = _scores(tokens, model, added)
        unknown = model.get("unk_token")
        types = [_token_type(token, added, answer_markers, unknown) for token in tokens]
        return Vocabulary("llama", "default", tokens, types, scores, None)
    raise gguf_error("its tokenizer is neither byte-level BPE nor Gemma's")


def write_vocabulary(
    writer: GGUFWriter,
    vocabulary: Vocabulary,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stop_ids: Sequence[int],
    add_bos: bool,
) -> None:
    """Add the vocabulary and the ids of its special tokens to a GGUF file.

    stop_ids: GGUF has fields for three, all of which stop a runtime
    """
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        # The default would change the prompt that the student was trained on.
        writer.add_add_space_prefix(False)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    untyped: Any = tokenizer
    # The tokenizer's own EOS first, as GGUF's EOS.
    ordered = sorted(dict.fromkeys(stop_ids), key=lambda token: token != untyped.eos_token_id)
    setters = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, token in zip(setters, ordered, strict=False):
        add(token)
    for add, token in (
        (writer.add_bos_token_id, untyped.bos_token_id),
        (writer.add_pad_token_id, untyped.pad_token_id),
        (writer.add_unk_token_id, untyped.unk_token_id),
    ):
        if token is not None:
            add(token)
    writer.add_add_bos_token(add_bos)
    writer.add_add_eos_token(False)


def _tokenizer_json(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise gguf_error("its tokenizer has no tokenizer.json")
    definition: dict[str, Any] = json.loads(backend.to_str())
    kind = definition["model"].get("type")
    if kind != "BPE":
        raise gguf_error(f"its tokenizer is {kind}, and only BPE is known")
    return definition


def _tokens(definition: dict[str, Any], rows: int) -> tuple[list[str], dict[str, bool]]:
    """Every token in the order of ids, and for each added token whether it is special."""
    by_id = {id: token for token, id in definition["model"]["vocab"].items()}
    added: dict[str, bool] = {}
    for entry in definition["added_tokens"]:
        if entry["lstrip"] or entry["rstrip"] or entry["single_word"]:
            raise gguf_error(f"its token {entry['content']!r} takes the blanks beside it")
        by_id[entry["id"]] = entry["content"]
        added[entry["content"]] = entry["special"]
    if max(by_id) >= rows:
        raise gguf_error(f"its tokenizer has {max(by_id) + 1} tokens, and the model {rows} rows")
    tokens = [by_id.get(id, f"[PAD{id}]") for id in range(rows)]
    if len(set(tokens)) < len(tokens):
        raise gguf_error("two of its tokens are written the same")
    return tokens, added


def _token_type(
    token: str,
    added: Mapping[str, bool],
    answer_markers: Collection[str],
    unknown: str | None = None,
) -> int:
    if token == unknown:
        return UNKNOWN
    if token in added:
        return CONTROL if added[token] and token not in answer_markers else USER_DEFINED
    if unknown is not None and _BYTE_TOKEN.fullmatch(token):
        return BYTE
    return UNUSED if re.fullmatch(r"\[PAD\d+\]", token) else NORMAL


def _steps(step: Any, key: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, which may be a sequence, one step or none."""
    if step is None:
        return []
    return step[key] if step["type"] == "Sequence" else [step]


def _is_sentencepiece(definition: dict[str, Any]) -> bool:
    """Whether it replaces blanks by ▁, adds no prefix, and has byte fallback, as Gemma's does."""
    normalizers = [
        (step["type"], step.get("pattern"), step.get("content"))
        for step in _steps(definition["normalizer"], "normalizers")
    ]
    # After the normalizer, a split at blanks has no effect.
    no_splits = all(
        step["type"] == "Split" and step["pattern"] == {"String": " "}
        for step in _steps(definition["pre_tokenizer"], "pretokenizers")
    )
    return (
        normalizers == [("Replace", {"String": " "}, SPACE)]
        and bool(definition["model"].get("byte_fallback"))
        and no_splits
    )


def _pre_tokenizer(definition: dict[str, Any]) -> str:
    """GGUF's name for the pre-tokenizer of a byte-level tokenizer."""
    normalizers = _steps(definition["normalizer"], "normalizers")
    # NFC changes only text that is not composed; runtimes leave it out for Qwen as well.
    if other := next((step["type"] for step in normalizers if step["type"] != "NFC"), None):
        raise gguf_error(f"its tokenizer changes text ({other}), which GGUF cannot say")
    match _steps(definition["pre_tokenizer"], "pretokenizers"):
        case [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}, last] if (
            _is_byte_level(last, use_regex=False)
        ):
            ignore_merges = bool(definition["model"].get("ignore_merges"))
            if name := _PRE_TOKENIZERS.get((pattern, ignore_merges)):
                return name
        case [{"type": "Digits", "individual_digits": True}, last] if _is_byte_level(last):
            return "smollm"
        case [last] if _is_byte_level(last):
            return "gpt-2"
    raise gguf_error("its tokenizer cuts text in a way that has no name in GGUF")


def _is_byte_level(step: dict[str, Any], use_regex: bool = True) -> bool:
    plain = step["type"] == "ByteLevel" and not step["add_prefix_space"]
    return plain and step["use_regex"] == use_regex


def _merge_pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    merges = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    return [(left, right) for left, right in merges]


def _scores(tokens: Sequence[str], model: dict[str, Any], added: Mapping[str, bool]) -> list[float]:
    """Minus the rank of each token's merges; a token that no merge makes scores 0."""
    pairs = _merge_pairs(model)
    ranks: dict[str, int] = {}
    previous = None
    for rank, (left, right) in enumerate(pairs):
        merged = left + right
        if merged != previous and merged in ranks:
            raise gguf_error(f"the merges that make {merged!r} do not stand together")
        ranks.setdefault(merged, rank)
        previous = merged
    known, listed = set(model["vocab"]), set(pairs)
    for token in tokens:
        if token in added:
            continue
        for at in range(1, len(token)):
            pair = (token[:at], token[at:])
            if pair[0] in known and pair[1] in known and pair not in listed:
                raise gguf_error(
                    f"{pair} would be joined to {token!r} by a runtime, and are not here"
                )
    return [-float(ranks.get(token, 0)) for token in tokens]


def gguf_error(cause: str) -> ExportError:
    return ExportError(
        f"cannot be written as GGUF: {cause}",
        hint="export it with --format hf, which takes every student",
    )
