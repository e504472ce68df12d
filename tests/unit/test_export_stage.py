"""`distill export`: loaded again and answering the same, made when needed, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import export_students as tiny
import pytest
import yaml
from export_run import adapt, make_run, student_folder, trained

from distill.cards.model import write_model_card
from distill.errors import ExportError, RunError
from distill.evaluate.score import score
from distill.evaluate.tables import scores_json
from distill.export.export import export
from distill.export.merged import write_merged
from distill.export.parity import compare_answers, load_merged, load_reference, parity_prompts
from distill.files import write_json
from distill.render import Renderer
from distill.run.folder import RunFolder
from distill.run.manifest import StageEntry
from distill.sharing.decode import greedy_decode


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that was exported in every form."""
    folder = tmp_path_factory.mktemp("made")
    student = student_folder("gemma3", folder / "student")
    run = make_run(folder / "run", str(student), lambda path: adapt(tiny.model("gemma3"), path))
    done = export(run, ["hf", "gguf", "ollama"], quantization="f32")
    assert [(one.made, one.parity.same, one.parity.of) for one in done] == [(True, 20, 20)] * 3
    return run


@pytest.fixture
def run(made: RunFolder, tmp_path: Path) -> RunFolder:
    """The same, of one's own."""
    shutil.copytree(made.path, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def told(run: RunFolder, *formats: str, **how: Any) -> tuple[list[bool], list[str]]:
    """Which formats were made, and what was said."""
    said: list[str] = []
    how = {"quantization": "f32"} | how
    done = export(run, formats or ("hf",), notice=said.append, **how)
    return [one.made for one in done], said


def test_anybody_loads_it_and_gets_the_student_s_answers(made: RunFolder) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = made.path / "export" / "hf"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": "Where is the policy?"}]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt"
    )
    # No argument but the inputs: greedy decoding and the ends of a turn come with the folder.
    said = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :].tolist()
    base = tiny.student("gemma3")
    stops = tiny.renderer("gemma3").stop_ids
    tuned = load_reference(base, made.path / "7-train" / "adapter")
    ids = inputs["input_ids"].tolist()
    assert [said] == greedy_decode(tuned, ids, stops, 8)
    assert [said] != greedy_decode(base.load(), ids, stops, 8)
    assert model.generation_config.do_sample is False


def test_a_second_export_is_up_to_date(run: RunFolder) -> None:
    assert told(run, "hf", "gguf", "ollama") == ([False] * 3, [])
    assert told(run, "hf", redo=True) == ([True], [])


def test_another_adapter_is_exported_anew_and_said(run: RunFolder) -> None:
    before = (run.path / "export" / "hf" / "model.safetensors").read_bytes()
    adapt(tiny.model("gemma3"), run.path / "7-train" / "adapter", seed=1)
    trained(run)
    made, said = told(run)
    assert made == [True]
    assert "made from another student or other settings" in said[0]
    assert (run.path / "export" / "hf" / "model.safetensors").read_bytes() != before


def test_other_bits_and_a_damaged_file_are_made_anew(run: RunFolder) -> None:
    assert told(run, "gguf", quantization="q8_0")[0] == [True]
    assert [path.name for path in (run.path / "export" / "gguf").glob("*.gguf")] == [
        "model-q8_0.gguf"
    ]
    weights = run.path / "export" / "hf" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    made, said = told(run)
    assert made == [True]
    assert "model.safetensors is not what the export wrote" in said[0]


def test_answers_that_differ_are_reported_and_no_error(tmp_path: Path) -> None:
    student = student_folder("qwen2", tmp_path / "student")
    run = make_run(tmp_path / "run", str(student), lambda path: adapt(tiny.model("qwen2"), path))
    (one,) = export(run, ["gguf"], quantization="q8_0")
    assert one.made
    assert 0 < one.parity.same < one.parity.of == 20
    assert "the student says" in one.parity.difference
    (again,) = export(run, ["gguf"], quantization="q8_0")
    assert (again.made, again.parity) == (False, one.parity)


def test_what_a_killed_export_left_is_swept_away(run: RunFolder) -> None:
    root = run.path / "export"
    shutil.rmtree(root / "hf")
    for left in (".hf.part", ".hf.old"):
        (root / left).mkdir()
        (root / left / "junk").write_text("x", "utf-8")
    assert told(run)[0] == [True]
    assert sorted(path.name for path in root.iterdir()) == ["gguf", "hf", "ollama"]
    assert not (root / "hf" / "junk").exists()


@pytest.mark.parametrize("formats", [["gguf"], ["hf", "gguf"]])
def test_a_refused_export_leaves_nothing(formats: list[str], tmp_path: Path) -> None:
    student = student_folder("qwen3", tmp_path / "student", hidden_act="gelu")
    base = tiny.model("qwen3", hidden_act="gelu")
    run = make_run(tmp_path / "run", str(student), lambda path: adapt(base, path))
    with pytest.raises(ExportError, match="its activation is gelu"):
        export(run, formats)
    assert not list((run.path / "export").iterdir())


def test_a_folder_of_somebody_else_is_left_alone(run: RunFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "hf" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("x", "utf-8")
    with pytest.raises(ExportError, match="is not an export of distill's"):
        told(run, out=tmp_path / "mine", redo=True)
    assert mine.read_text("utf-8") == "x"
    assert not (tmp_path / "mine" / ".hf.part").exists()


def test_without_a_student_there_is_nothing_to_export(run: RunFolder) -> None:
    run.forget(["train"])
    with pytest.raises(RunError, match="no student was trained here yet"):
        told(run)


# PEFT warns of what this test is about.
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied")
@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
def test_modules_that_were_trained_whole_are_in_every_export(module: str, tmp_path: Path) -> None:
    """Tied in the base, and apart after: neither may be made from the other."""
    student = student_folder("qwen2", tmp_path / "student")
    run = make_run(
        tmp_path / "run",
        str(student),
        lambda path: adapt(tiny.model("qwen2"), path, modules_to_save=[module]),
    )
    for one in export(run, ["hf", "gguf"], quantization="f32"):
        assert one.parity.exact, one.parity.difference


def test_a_fully_tuned_student_is_exported(tmp_path: Path) -> None:
    student = student_folder("llama", tmp_path / "student")
    tuned = tiny.model("llama", initializer_range=0.4)
    run = make_run(tmp_path / "run", str(student), tuned.save_pretrained, tuning="full")
    for one in export(run, ["hf", "gguf"], quantization="f32"):
        assert one.parity.exact, one.parity.difference


WITHOUT_DISTILL = """
import json, sys
sys.modules["distill"] = None  # as where it is not installed
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt = sys.argv[1], json.loads(sys.argv[2])
try:
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code" in str(error), error
else:
    raise AssertionError("read as another model")
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt")
said = model.generate(**inputs, max_new_tokens=6)[0, inputs["input_ids"].shape[1]:]
print(json.dumps([inputs["input_ids"][0].tolist(), said.tolist()]))
"""


def test_the_embedded_student_runs_where_distill_is_not(tmp_path: Path) -> None:
    import render_tokenizers as kit
    import torch

    from distill.records import Message
    from distill.students.decoder import MiniLMConfig, MiniLMDecoder
    from distill.students.embedded import verified_folder
    from distill.students.wordpiece import load_tokenizer

    tokenizer = load_tokenizer(verified_folder() / "vocab.txt", kit.TOOLS)
    renderer = Renderer(tokenizer, kit.TOOLS, declarations="none")
    torch.manual_seed(0)
    heads = {"user_heads": [202, 203], "model_heads": [204, 205], "is_decoder": True}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = MiniLMDecoder(
        MiniLMConfig(intermediate_size=64, initializer_range=0.5, **shape, **heads)
    ).eval()
    folder = tmp_path / "hf"
    write_merged(model, renderer, folder, max_new_tokens=6)
    prompt = [{"role": "user", "content": "Where is the policy on meals?"}]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DISTILL, str(folder), json.dumps(prompt)],
        env=os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ids, said = json.loads(done.stdout)
    expected = renderer.prompt([Message(role="user", content=prompt[0]["content"])])
    assert ids == expected
    assert [said] == greedy_decode(model, [expected], renderer.stop_ids, 6)


def test_a_difference_names_the_prompt_and_both_answers(made: RunFolder) -> None:
    renderer = tiny.renderer("gemma3")
    asked = parity_prompts(made, renderer, 1023)[:3]
    same, other = [[70], [71], [72]], [[70], [71], [73]]
    assert compare_answers(same, same, asked, renderer) == (3, 3, "")
    found = compare_answers(same, other, asked, renderer)
    assert (found.same, found.of) == (2, 3)
    assert asked[2].text in found.difference


# --- the card ---


def test_a_card_says_what_is_known(run: RunFolder) -> None:
    text = (run.path / "export" / "hf" / "README.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    described = yaml.safe_load(front)
    assert described["library_name"] == "transformers"
    assert described["pipeline_tag"] == "text-generation"
    assert "base_model" not in described  # a folder's name means nothing elsewhere
    assert str(run.path.parent) not in text
    for expected in ("search_knowledge_base", "Documents: call", "Not evaluated.", "| steps | `3`"):
        assert expected in body
    snippet = body.split("```python\n")[1].split("```")[0]
    compile(snippet, "README.md", "exec")


def evaluated(run: RunFolder) -> None:
    """Leave an evaluation of two right answers in the run."""
    from distill.evaluate.score import judge
    from distill.render import Parsed

    (case,) = run.workflow.gold
    scores = {"tuned": score([judge(case, Parsed(reply="hi"), "tuned", raw="hi")] * 2)}
    write_json(run.path / "8-evaluate" / "gold" / "scores.json", scores_json("gold", scores))
    entry = StageEntry(
        settings={},
        inputs=run.digests(["7-train/adapter"]),
        outputs={},
        counts={"gold": {"tuned": 1.0}},
        seconds=1.0,
    )
    run.remember("evaluate", entry)


def test_scores_come_into_an_export_that_is_up_to_date(run: RunFolder) -> None:
    evaluated(run)
    card = run.path / "export" / "hf" / "README.md"
    assert told(run)[0] == [False]
    assert "| gold | tuned | 2 | 100.0 (34.2–100.0)" in card.read_text("utf-8")
    assert told(run) == ([False], [])


def test_a_card_that_was_edited_stays(run: RunFolder) -> None:
    card = run.path / "export" / "hf" / "README.md"
    card.write_text("by hand", "utf-8")
    evaluated(run)
    made, said = told(run)
    assert (made, "was edited" in said[0]) == ([False], True)
    assert card.read_text("utf-8") == "by hand"


def test_scores_of_another_adapter_are_not_this_one_s(run: RunFolder, tmp_path: Path) -> None:
    evaluated(run)
    adapt(tiny.model("gemma3"), run.path / "7-train" / "adapter", seed=1)
    write_model_card(run, tmp_path)
    assert "Not evaluated when this card was written" in (tmp_path / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("student", "base", "license"),
    [
        ("embedded", "sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"),
        ("google/functiongemma-270m-it", "google/functiongemma-270m-it", "gemma"),
        ("owner/unknown", "owner/unknown", None),
    ],
)
def test_a_card_names_the_base_and_its_licence(
    student: str, base: str, license: str | None, run: RunFolder, tmp_path: Path
) -> None:
    train = run.config.train.model_copy(update={"student": student})
    other = run.with_config(run.config.model_copy(update={"train": train}))
    write_model_card(other, tmp_path, "hf")
    text = (tmp_path / "README.md").read_text("utf-8")
    described = yaml.safe_load(text.split("---\n")[1])
    assert described["base_model"] == base
    assert described.get("license") == license
    assert ("trust_remote_code=True" in text) == (student == "embedded")


def test_loading_what_is_no_model_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    from distill.errors import StudentError

    (tmp_path / "config.json").write_text("{}", "utf-8")
    with pytest.raises(StudentError, match="cannot be loaded again"):
        load_merged(tmp_path)
