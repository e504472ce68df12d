"""Where everything stands in a run folder: the only module that spells these names.

Paths are relative to the run folder and in POSIX form, as the manifest records them.
"""

from __future__ import annotations

FORMAT = 1
"""The run format: raised when runs made before can no longer be used."""

CONFIG = "config.json"
MANIFEST = "manifest.json"
LOCK = ".lock"
INPUTS = "inputs"
WORKFLOW = f"{INPUTS}/workflow.json"

GATE = "0-gate"
GATE_PREDICTIONS = f"{GATE}/predictions.jsonl"
GATE_SCORES = f"{GATE}/scores.json"

PLAN = "1-plan"
SCENARIOS = f"{PLAN}/scenarios.jsonl"

GENERATE = "2-generate"
REPLIES = f"{GENERATE}/replies.sqlite"
OUTCOMES = f"{GENERATE}/.outcomes.part"
CANDIDATES = f"{GENERATE}/candidates.jsonl"
FAILURES = f"{GENERATE}/failures.jsonl"
TEACHER_LOG = f"{GENERATE}/vllm.log"

VALIDATE = "3-validate"
DEDUP = "4-dedup"
BALANCE = "5-balance"
SIEVES = {"validate": VALIDATE, "dedup": DEDUP, "balance": BALANCE}
EXAMPLES = {name: f"{folder}/examples.jsonl" for name, folder in SIEVES.items()}
REJECTED = {name: f"{folder}/rejected.jsonl" for name, folder in SIEVES.items()}

SPLIT = "6-split"
SPLITS = {name: f"{SPLIT}/{name}.jsonl" for name in ("train", "dev", "test")}
DATASET_CARD = f"{SPLIT}/README.md"

TRAIN = "7-train"
ADAPTER = f"{TRAIN}/adapter"
CHECKPOINTS = f"{TRAIN}/checkpoints"
TRAINING_STARTED = f"{TRAIN}/started.json"
METRICS = f"{TRAIN}/metrics.jsonl"
LOSS_PLOT = f"{TRAIN}/loss.png"
UNTRAINABLE = f"{TRAIN}/rejected.jsonl"

EVALUATE = "8-evaluate"
STUDENT_LOG = f"{EVALUATE}/vllm.log"

REPORT = "report.json"
REPORT_PAGE = "report.md"

EXPORT = "export"
ABLATE = "ablate"
ABLATION = f"{ABLATE}/ablation.json"


def predictions(dataset: str, arm: str) -> str:
    """What an arm of the evaluation said to each case of a data set."""
    return f"{EVALUATE}/{dataset}/{arm}.jsonl"


def scores(dataset: str) -> str:
    """What the arms' predictions on a data set are worth."""
    return f"{EVALUATE}/{dataset}/scores.json"
