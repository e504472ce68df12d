"""The beginning that rows share, computed once: for training and for evaluation."""

from distill.sharing.cached import (
    IGNORED,
    Batch,
    Score,
    prefix_cache,
    regroup,
    repeated,
    shared_loss,
    suffix_logits,
)
from distill.sharing.flat import flat_loss
from distill.sharing.groups import Group, partition

__all__ = [
    "IGNORED",
    "Batch",
    "Group",
    "Score",
    "flat_loss",
    "partition",
    "prefix_cache",
    "regroup",
    "repeated",
    "shared_loss",
    "suffix_logits",
]
