"""A student, an adapter or an export that would run code is refused by name, and runs nothing."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distill.errors import StudentError
from distill.export.merged import CODE_FILE, has_own_code
from distill.export.parity import load_reference
from distill.students import decoder, load_student

PACKAGE = Path(str(decoder.__file__)).parents[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model of one layer in a folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("students") / "tiny"
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    load_student("embedded", ()).tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self._mark),)


def with_own_code(folder: Path, model_type: str) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {
        "model_type": model_type,
        "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"},
    }
    path.write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")


def test_a_model_with_code_of_its_own_is_refused_and_nobody_is_asked(copy: Path) -> None:
    with_own_code(copy, "evil")
    code = f"from distill.students import load_student; load_student({str(copy)!r}, ())"
    done = subprocess.run(
        [sys.executable, "-c", code], input="y\n" * 9, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == ""
    assert "StudentError" in done.stderr
    with pytest.raises(StudentError, match=r"code of its own \(auto_map\)"):
        load_student(str(copy), ())
    assert not (copy / "ran").exists()


def test_a_tokenizer_with_code_of_its_own_is_not_run(copy: Path) -> None:
    path = copy / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.T", None]}}
    path.write_text(json.dumps(config))
    (copy / "evil.py").write_text(f"open({str(copy / 'ran')!r}, 'w')\n")
    with pytest.raises(StudentError, match="code of its own"):
        load_student(str(copy), ())
    assert not (copy / "ran").exists()


def test_an_architecture_of_transformers_needs_no_code_of_the_models(copy: Path) -> None:
    with_own_code(copy, "llama")
    load_student(str(copy), ()).load()
    assert not (copy / "ran").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "w.pkl"])
def test_pickled_weights_are_refused_by_name(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(StudentError, match=rf"pickled \({name}\)"):
        load_student(str(copy), ())
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_pickled_too_do_not_matter(copy: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin"):
        (copy / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    load_student(str(copy), ()).load()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("student", ["embedded", "folder"])
def test_a_fully_tuned_student_of_pickled_weights_is_refused(
    tiny: Path, tmp_path: Path, student: str
) -> None:
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    loaded = load_student(student if student == "embedded" else str(tiny), ())
    with pytest.raises(StudentError, match=r"pickled \(pytorch_model\.bin\)"):
        loaded.load(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("how", ["route", "export"])
def test_a_pickled_adapter_is_refused(tiny: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1}')
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    student = load_student(str(tiny), ())
    with pytest.raises(StudentError, match=r"pickled \(adapter_model\.bin\)"):
        student.load(tmp_path) if how == "route" else load_reference(student, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_adapter_that_names_a_module_to_import_is_refused(tiny: Path, tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 1, "megatron_config": {"a": 1}, "megatron_core": "evil"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(StudentError, match="code of its own"):
        load_student(str(tiny), ()).load(tmp_path)


def test_an_export_is_only_run_where_its_code_is_ours(tmp_path: Path) -> None:
    assert not has_own_code(tmp_path)
    shutil.copyfile(str(decoder.__file__), tmp_path / CODE_FILE)
    assert has_own_code(tmp_path)
    with open(tmp_path / CODE_FILE, "a") as file:
        file.write("import os\n")
    assert not has_own_code(tmp_path)


def loading_functions() -> Iterator[tuple[str, str]]:
    """Each function of the package that has `from_pretrained`, with its text."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                found = [
                    one
                    for one in ast.walk(node)
                    if isinstance(one, ast.Attribute)
                    and one.attr == "from_pretrained"
                    and getattr(one.value, "id", "") != "PeftModel"
                ]
                if found:
                    yield f"{path.name}:{node.name}", ast.get_source_segment(source, node) or ""


def test_every_from_pretrained_says_that_no_code_is_run() -> None:
    functions = dict(loading_functions())
    assert len(functions) >= 6
    silent = [
        name
        for name, text in functions.items()
        if not any(word in text for word in ("NO_CODE", "NO_PICKLE", "trust_remote_code="))
    ]
    assert silent == []
