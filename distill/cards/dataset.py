"""The dataset card: README.md of the folder with the splits, as the Hugging Face hub reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import yaml

from distill.config import Config
from distill.data.split import Splits
from distill.records import Example, StageCount
from distill.students.public import without_path
from distill.workflow.model import Workflow
from distill.workflow.problems import as_markdown


def dataset_card(
    workflow: Workflow, splits: Splits, config: Config, funnel: Sequence[StageCount] = ()
) -> str:
    """The card as Markdown with YAML front matter; `funnel`: the counts of the filtering stages."""
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    fields = _front_matter(workflow, parts)
    front_matter = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    rows = [example for part in parts.values() for example in part]
    teachers = sorted({e.teacher for e in rows if not e.is_own})
    own = {name: sum(e.is_own for e in part) for name, part in parts.items()}
    counted = ", ".join(f"{count} in {name}" for name, count in own.items())
    note = OWN_ROWS.format(counted=counted) if any(own.values()) else ""
    only_own = bool(note) and not teachers
    limits = (*(() if only_own else GENERATED), *LIMITS, *splits.notes)
    sections = [
        f"---\n{front_matter}---\n\n# {as_markdown(workflow.title)}",
        f"{'R' if note else 'Synthetic r'}outing conversations for the workflow "
        f"`{workflow.name}`: which tool a request must reach, with which arguments, or whether to "
        "ask, to answer or to refuse.",
        "## Counts\n\n" + _counts(parts),
        *([note] if note else []),
        *(["## What was sieved out\n\n" + _funnel(funnel)] if funnel else []),
        "## How it was made\n\n" + _provenance(workflow, config, teachers),
        FIELDS,
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits),
    ]
    return "\n\n".join(sections) + "\n"


FIELDS = """## Fields

| field | meaning |
|---|---|
| `id` | digest of scenario, conversation and target |
| `scenario` | what was asked for: rule, target kind, tools, style, language, topic, seed |
| `messages` | the conversation, up to the turn that the target describes |
| `target` | the right action: `kind` is call, ask, answer or refuse; then `calls` or `reply` |
| `teacher` | who wrote it; `rows` of the team's own rows |
| `tools`, `split`, `place` | of an own row: its own tools, the split that it says, file:line |"""

OWN_ROWS = (
    "Of these, {counted} are the team's own labelled rows, whose teacher is `rows`: their labels "
    "were read, not decided by a plan; what follows of generated rows is not said of them."
)
GENERATED = (
    "The label was decided by the plan before the text was written; no human has read the rows.",
    "The requests are the teacher's idea of how people write. The test split has the same origin: "
    "it measures agreement with the teacher, human-written cases measure use.",
)
LIMITS = ("Splits are by family: no topic, and no exact or near duplicate, stands in two of them.",)


def _front_matter(workflow: Workflow, parts: Mapping[str, Sequence[Example]]) -> dict[str, object]:
    hub = {"train": "train", "dev": "validation", "test": "test"}
    files = [{"split": hub[n], "path": f"{n}.jsonl"} for n, part in parts.items() if part]
    rows = [example for part in parts.values() for example in part]
    # Of own rows nobody said the language.
    generated = [example for example in rows if not example.is_own]
    languages = sorted({example.scenario.language for example in generated})
    synthetic = ["synthetic"] if generated or not rows else []
    return {
        "pretty_name": workflow.title,
        **({"language": languages} if generated or not rows else {}),
        "task_categories": ["text-generation"],
        "tags": ["function-calling", "tool-routing", *synthetic],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _counts(parts: Mapping[str, Sequence[Example]]) -> str:
    counts = {name: Counter(e.scenario.cell for e in part) for name, part in parts.items()}
    cells = sorted(set().union(*counts.values()))
    rows = ["| rule | target | train | dev | test |", "|---|---|--:|--:|--:|"]
    for cell in cells:
        numbers = " | ".join(str(counts[name][cell]) for name in parts)
        rows.append(f"| {cell.rule or '(none)'} | {cell.target} | {numbers} |")
    totals = " | ".join(str(len(part)) for part in parts.values())
    return "\n".join([*rows, f"| all | | {totals} |"])


def _funnel(funnel: Iterable[StageCount]) -> str:
    rows = ["| stage | in | kept | rejected |", "|---|--:|--:|---|"]
    for count in funnel:
        reasons = ", ".join(f"{reason} {n}" for reason, n in count.dropped.items()) or "none"
        rows.append(f"| {count.stage} | {count.came_in} | {count.kept} | {reasons} |")
    return "\n".join(rows)


def _provenance(workflow: Workflow, config: Config, teachers: Sequence[str]) -> str:
    data, made_by = config.data, ", ".join(f"`{_teacher(name)}`" for name in teachers)
    return "\n".join(
        [
            f"- Workflow `{workflow.name}`, fingerprint `{workflow.fingerprint}`.",
            f"- Teacher: {made_by or 'none'}. Seed: {data.seed}.",
            "- Checked for format, JSON Schema of arguments and grounding of argument values.",
            f"- Duplicates removed: exact, and near (character 3-grams, Jaccard "
            f"{data.near_duplicate} and more), among themselves and with the gold set "
            f"({len(workflow.gold)} cases).",
            f"- Held out by family: {data.dev_share:g} for dev, {data.test_share:g} for test.",
        ]
    )


def _teacher(name: str) -> str:
    """A teacher's name, as vllm:MODEL, without the path of a model in a folder."""
    kind, colon, model = name.partition(":")
    return f"{kind}{colon}{without_path(model)}"
