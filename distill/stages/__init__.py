"""The flow of a run, stage by stage: each reads files that an earlier one wrote.

What a stage reads, writes and does stands in the module that is named after it.
"""

from __future__ import annotations

from distill.stages import (
    balance,
    dedup,
    evaluate,
    gate,
    generate,
    plan,
    report,
    split,
    train,
    validate,
)
from distill.stages.stage import Stage

FLOW: tuple[Stage, ...] = (
    gate.STAGE,  # gold cases -> predictions: can the teacher route by these rules itself?
    plan.STAGE,  # workflow -> scenarios: what is wanted, each with its label
    generate.STAGE,  # scenarios -> candidates and failures: the teacher writes
    validate.STAGE,  # candidates -> examples and rejections: format, schema, rule, grounding
    dedup.STAGE,  # examples -> examples and rejections: exact and near duplicates, gold
    balance.STAGE,  # examples -> examples and rejections: quotas
    split.STAGE,  # examples -> train, dev, test
    train.STAGE,  # train, dev -> adapter
    evaluate.STAGE,  # test, gold, adapter -> predictions and scores
    report.STAGE,  # all of it -> a report for people
)
