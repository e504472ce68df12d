"""SmolLM2 from its package: the file is checked, dequantised once, and its copy is checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from kit.training import TOOL
from safetensors import SafetensorError

from distill.errors import MissingExtraError, StudentError, WriteError
from distill.students import load_student, smollm2
from distill.students.packaged import package_folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all worker processes."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if base.name.startswith("popen-") else base) / "cache"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture
def weights(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))
    yield smollm2.weights_folder()
    smollm2.weights_folder.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, into which a small file is converted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "_save", _save_small)
    smollm2.weights_folder.cache_clear()
    yield tmp_path / "cache" / "distill"
    smollm2.weights_folder.cache_clear()


def _save_small(source: Path, draft: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (draft / name).write_text("{}")
    (draft / "model.safetensors").write_bytes(source.read_bytes()[:1000])


def test_the_copy_holds_what_the_file_holds(weights: Path) -> None:
    from gguf import GGUFReader, dequantize
    from safetensors import safe_open

    package = package_folder(smollm2.PACKAGE)
    assert package is not None
    tensors = {tensor.name: tensor for tensor in GGUFReader(package / smollm2.FILE).tensors}
    pairs = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
        "blk.29.ffn_down.weight": "model.layers.29.mlp.down_proj.weight",
        "blk.17.attn_v.weight": "model.layers.17.self_attn.v_proj.weight",
        "output_norm.weight": "model.norm.weight",
    }
    with safe_open(weights / "model.safetensors", "pt") as copy:
        for name, ours in pairs.items():
            read = torch.tensor(dequantize(tensors[name].data, tensors[name].tensor_type))
            assert torch.equal(copy.get_tensor(ours), read.reshape(copy.get_tensor(ours).shape))


def test_the_student_can_read(weights: Path) -> None:
    student = load_student("smollm2", [TOOL])
    assert student.fingerprint == smollm2.FINGERPRINT
    assert student.context_length == 8192
    assert (student.name, student.declarations) == ("smollm2", "none")
    model, tokenizer = student.load(), student.tokenizer
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        said = tokenizer.decode(model(ids).logits[0, -1].argmax())
    assert said == " Paris"


def test_a_copy_is_made_once(cache: Path) -> None:
    folder = smollm2.weights_folder()
    assert folder.parent.parent == cache
    written = (folder / "model.safetensors").stat().st_mtime_ns
    smollm2.weights_folder.cache_clear()
    assert smollm2.weights_folder() == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", folder.name]


@pytest.mark.parametrize("harm", ["cut", "flip", "gone", "more", "no note", "other note", "none"])
def test_an_altered_copy_is_made_again(cache: Path, harm: str) -> None:
    folder = smollm2.weights_folder()
    model, digests = folder / "model.safetensors", folder / smollm2.DIGESTS
    whole = model.read_bytes()
    if harm == "cut":
        model.write_bytes(whole[:-1])
    elif harm == "flip":
        model.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    elif harm == "gone":
        model.unlink()
    elif harm == "more":
        (folder / "adapter_config.json").write_text("{}")
    elif harm == "no note":
        digests.unlink()
    else:
        digests.write_text("[]" if harm == "other note" else json.dumps({}))
    smollm2.weights_folder.cache_clear()
    assert smollm2.weights_folder() == folder
    assert model.read_bytes() == whole
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", folder.name]


def test_two_processes_make_one_copy(cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: smollm2.weights_folder.__wrapped__(), range(4)))
    assert len(set(made)) == 1
    assert smollm2._is_whole(made[0])


def test_a_full_disk_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, draft: Path) -> None:
        (draft / "model.safetensors").write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(smollm2, "_save", full)
    with pytest.raises(WriteError, match="No space left") as caught:
        smollm2.weights_folder()
    assert "XDG_CACHE_HOME" in str(caught.value)
    assert not list(cache.rglob("*.safetensors"))


def test_a_cache_that_cannot_be_written_is_told(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file in its place")
    with pytest.raises(WriteError) as caught:
        smollm2.weights_folder()
    assert str(cache) in str(caught.value)


def test_a_missing_package_names_the_command(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(MissingExtraError) as caught:
        load_student("smollm2", [TOOL])
    assert smollm2.INSTALL in str(caught.value)
    assert "--no-deps" in smollm2.INSTALL


def test_another_file_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "weights_of_another"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('no code of it runs')")
    (package / smollm2.FILE).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(smollm2, "PACKAGE", package.name)
    with pytest.raises(StudentError, match="not the file as published"):
        smollm2.weights_folder()
    assert package.name not in sys.modules
    assert not list(cache.rglob("*.safetensors"))
