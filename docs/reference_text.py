"""What the generated reference says that code does not tell. generate_reference.py asks for all."""

from __future__ import annotations

SETTINGS = """# Settings

Settings stand in `distill.toml`, in one table for each of the sections below. `distill gen`,
`distill run` and `distill plan` read the file that `--config` names, else the `distill.toml` beside
`rules.md`, else the one in the working directory. Flags win over the file. `distill train`,
`distill eval` and `distill ablate` start from the settings that the run was made with; there,
`--config` replaces `[train]` and `[evaluate]` alone.

## What only you may set

A `distill.toml` beside somebody's rules, and the `config.json` of somebody's run, come with their
data. Settings that run a command, load code, or name a secret or an address (`teacher.base_url`,
`teacher.api_key_env`, `teacher.vllm_command`, `teacher.vllm_args`) are therefore taken from

- flags, tables given in Python, and the variables `OPENAI_BASE_URL` and `OPENAI_API_KEY`,
- the file that `--config` names,
- your own file, `~/.config/distill/distill.toml` (`$XDG_CONFIG_HOME`; on macOS
  `~/Library/Application Support/distill/distill.toml`).

A `distill.toml` that was only found, with other values of these than you give yourself, stops the
command, which names file, line and value. There is no exception for 127.0.0.1: a key would be sent
there as well. A run records them for people. A later command that would use them (`distill eval
--backend vllm`) asks for them again, by flag or from your own file; all others go on without them.

Your own file may hold every setting that changes speed or place alone. It is the lowest source:
all others win over it.

## Identity and speed

A setting from which an artefact's bytes follow makes a run *stale* when it changes: distill names
the setting and stops, and `--redo` makes the stages anew. A setting that only changes speed or
place may change at any time; the reason stands beside it."""

COMMANDS = """# Commands

Results go to stdout, progress and notes to stderr. `--json` prints one JSON value for a machine.
Exit codes: [errors](errors.md). `-h` and `--help` of each command print what stands here."""

FILES = """# Files

Stages meet on disk: each one reads files that an earlier one wrote. A file appears whole or not at
all (temporary file, fsync, rename), and `manifest.json` is written last. JSON Lines files hold one
JSON object a line, in UTF-8. What you write yourself is explained in
[your own workflow](../how-to/workflow.md); the JSON Schema of gold rows, and of the files given to
`distill eval RUN --data FILE`, is
{download}`gold.schema.json <../../schemas/formats/gold.schema.json>`.

## Run folder"""

RECORDS = """## Records

Each record has a JSON Schema (draft 2020-12) in `schemas/formats/`. The schemas describe what
distill writes: every field is there, and there is no other."""

PARTS = "What stands inside of the records above."

ERRORS = """# Errors and exit codes

| exit code | what it means |
| --- | --- |
| 0 | done |
| 1 | something that you can fix: the message gives the place, the cause and the way out |
| 2 | the command line or `distill.toml` is wrong |
| 3 | the run worked, and its result is below a bar that was set: quotas, the gate, a budget |
| 130 | interrupted (Ctrl-C); the same command goes on |

A message has the form `place: cause`, and the way out on the next line. A bad *item* is never an
error: it is a rejection or a failure, kept in a file and counted.

## Errors

Every error derives from `distill.DistillError`, with `problems` (place, cause, hint) and
`exit_code`."""

REASONS_INTRO = """Why a candidate is not trained on. `distill show RUN --rejected` prints rows with
their reasons; the report counts them."""

FAILURES_INTRO = """Why a scenario has no candidate. Failures are asked for again by the next
`distill gen`."""

OUTCOMES_INTRO = """What became of one case in an evaluation. A case has exactly one outcome."""

ENUMERATIONS = {
    "Reason": "rejection-reasons",
    "FailureReason": "failure-reasons",
    "Outcome": "outcomes",
}
"""Enumerations of records, and the headings of the page of errors under which they stand."""

REASONS = {
    "EMPTY_PROMPT": "validate: the user's turn has no visible character",
    "PROMPT_TOO_LONG": "validate: the prompt is longer than `data.max_prompt_chars`",
    "BAD_CHARACTERS": "validate: control characters, surrogates or U+FFFD in what was written",
    "WRONG_TARGET": "validate: not the action, tool or fixed argument that the rule demands",
    "UNKNOWN_TOOL": "validate: a tool that the workflow or the conversation does not have",
    "INVALID_ARGUMENTS": "validate: arguments that the tool's JSON Schema does not allow",
    "UNGROUNDED_ARGUMENT": "validate: an argument that stands in neither request, rule nor schema",
    "EMPTY_REPLY": "validate: an ask, answer or refusal without words",
    "EXACT_DUPLICATE": "dedup: the same conversation as another example, case and spacing aside",
    "NEAR_DUPLICATE": "dedup: at least `data.near_duplicate` similar to another example (MinHash)",
    "IN_GOLD": "dedup: the same or nearly the same prompt as a gold case",
    "OVER_QUOTA": "balance: its rule has as many examples as it needs",
    "UNRENDERABLE": "train: the student's chat format cannot express it",
    "TOO_LONG_FOR_STUDENT": "train: more tokens than `train.max_length`; nothing is truncated",
}
FAILURES = {
    "MALFORMED": "every reply broke the schema, also when asked again with the error shown",
    "REFUSED": "the model declined to answer, or a content filter held the reply back",
    "EMPTY": "the reply has no text",
    "TRUNCATED": "the reply was cut short at `teacher.max_tokens`",
    "TIMEOUT": "no reply in `teacher.timeout` seconds, in any of `teacher.attempts` tries",
    "SERVER": "the server kept failing, or refused this request",
}
OUTCOMES = {
    "RIGHT": "exactly the expected tools were called",
    "EXTRA": "the expected tools and at least one more",
    "MISSING": "fewer calls than expected, none of them wrong; or no call at all",
    "WRONG": "a tool that was not expected",
    "RIGHT_WORDS": "a reply in words where no call is expected",
    "OVER_CALL": "a call where no call is expected",
    "MALFORMED": "output that is neither a call nor a reply in the student's format",
}

PLACES = {
    "CONFIG": "the run format, the version, the workflow and every setting of the run",
    "MANIFEST": "for each finished stage: settings, digests of what it read and wrote, counts",
    "LOCK": "held by the process that works here, with its number",
    "INPUTS": "copies of rules.md, tools, words.md, gold.jsonl and your own rows",
    "WORKFLOW": "the workflow as it was read: rules, tools, gold cases and own rows",
    "GATE_PREDICTIONS": "gate: what the teacher made of each gold case",
    "GATE_SCORES": "gate: what that is worth",
    "SCENARIOS": "plan: what is asked for, with its label",
    "REPLIES": "generate: every reply of the teacher, and the ledger of tokens (SQLite)",
    "OUTCOMES": "generate: candidates and failures of a round that is under way",
    "CANDIDATES": "generate: what the teacher wrote, behind your own rows",
    "FAILURES": "generate: scenarios that the teacher never answered",
    "TEACHER_LOG": "generate: the log of a vLLM that distill started as the teacher",
    "EXAMPLES": "what passed each of the three stages",
    "REJECTED": "what did not, with the reason",
    "SPLITS": "split: the training data, and what is held out from it",
    "DATASET_CARD": "split: a dataset card",
    "ADAPTER": "train: the adapter (or all weights), with a model card",
    "CHECKPOINTS": "train: only while a training is under way",
    "TRAINING_STARTED": "train: settings and data, so that checkpoints of another are refused",
    "METRICS": "train: one JSON object for each logged step",
    "LOSS_PLOT": "train: loss over the steps",
    "UNTRAINABLE": "train: rows that do not fit the student",
    "STUDENT_LOG": "evaluate: the log of a vLLM that served the student",
    "predictions": "evaluate: what an arm said to each case of a data set (gold, test or a file)",
    "scores": "evaluate: what the arms' predictions on a data set are worth",
    "REPORT": "report: everything that the run has to show",
    "REPORT_PAGE": "report: the same for people, made from report.json and nothing else",
    "EXPORT": "exports, one folder for each format",
    "ABLATION": "ablate: what each way of declaring tools costs and is worth",
}
"""What stands where a constant or function of distill/run/layout.py points."""
HOLDS = {
    "RunSettings": ("CONFIG",),
    "Manifest": ("MANIFEST",),
    "Scenario": ("SCENARIOS",),
    "Candidate": ("CANDIDATES",),
    "Failure": ("FAILURES",),
    "Example": ("EXAMPLES", "SPLITS"),
    "Rejection": ("REJECTED", "UNTRAINABLE"),
    "Prediction": ("GATE_PREDICTIONS", "predictions"),
    "ScoresFile": ("GATE_SCORES", "scores"),
    "Workflow": ("WORKFLOW",),
    "Report": ("REPORT",),
    "Ablation": ("ABLATION",),
}
"""The record of which a file consists."""
FOLDERS = ("INPUTS", "ADAPTER", "CHECKPOINTS", "EXPORT")
WITHIN = (
    *("FORMAT", "GATE", "PLAN", "GENERATE", "VALIDATE", "DEDUP", "BALANCE", "SIEVES", "SPLIT"),
    *("TRAIN", "EVALUATE", "ABLATE"),
)
"""Names of the layout that only serve to make the others."""

FIELDS = {
    "id": "The content of the record as a hash.",
    "rule": "The rule's id.",
    "teacher": "The name of the teacher that wrote it.",
    "stage": "The stage's name.",
    "detail": "What exactly, for people.",
    "arm": "base, tuned, teacher or a baseline.",
    "n": "How many rows.",
    "dataset": "gold, test, or the name of a file.",
    "prompt": "What the user said last.",
    "calls": "Tool calls, in order.",
    "reply": "The reply in words; empty where there is a call.",
    "arguments": "The arguments by name.",
    "workflow": "The workflow's name.",
    "workflow_digest": "The workflow's fingerprint.",
    "kind": "The action: a call, or what is said instead.",
    "seconds": "Wall time.",
    "scenario": "What was asked for.",
    "Case.kind": "The action that is expected.",
    "Case.calls": "The calls that are expected.",
    "Case.messages": "The conversation, without the turn that is expected.",
    "CallSpec.tool": "The tool's name.",
    "CounterExample.winner": "The id of the rule that wins.",
    "ExpectedCall.name": "The tool's name.",
    "Message.role": "Who speaks.",
    "Message.tool_calls": "Of an assistant's earlier turn.",
    "ModeResult.declarations": "What the prompt says of the tools.",
    "Prediction.case": "The id of the case.",
    "Prediction.expected": "The calls that the case expects.",
    "Prediction.calls": "The calls that the arm made.",
    "Prediction.tool_correct": "Whether exactly the expected tools were called, or rightly none.",
    "Prediction.argument_f1": "Overlap of the arguments with those expected.",
    "Prediction.grounding_f1": "Overlap of the arguments' words with the prompt's.",
    "Rejection.item": "What was rejected, whole.",
    "Report.teacher": "Who wrote the data.",
    "Report.title": "The workflow's title.",
    "Report.splits": "Rows by split.",
    "Rule.id": "As in the heading of rules.md.",
    "RunSettings.config": "Every setting of the run.",
    "Scenario.language": "Of the request; `und` of an own row.",
    "Scenario.rule": "The rule's id; empty of an own row that names none.",
    "Scenario.seed": "From which the embedded teacher draws.",
    "Scenario.shape": "The turns of the conversation.",
    "Scenario.style": "One of `data.styles`; `own` of an own row.",
    "Scenario.target": "The action that must follow: the label.",
    "TeacherNote.name": "The teacher's name.",
    "ToolCall.name": "The tool's name.",
    "Workflow.name": "The name of the folder of rules.md, or of the file.",
    "Workflow.title": "As in the front matter of rules.md.",
}
"""What fields hold that have nothing under them in the code: by name, or by record and name."""
