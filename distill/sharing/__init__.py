"""The beginning that rows share, computed once: for training and for evaluation."""

from distill.sharing.cached import (
    IGNORED,
    Batch,
    Score,
    filled,
    prefix_cache,
    regroup,
    repeated,
    shared_loss,
    suffix_logits,
)
from distill.sharing.flat import flat_loss
from distill.sharing.groups import Group, partition
from distill.sharing.plain import opens_of

__all__ = [
    "IGNORED",
    "Batch",
    "Group",
    "Score",
    "filled",
    "flat_loss",
    "opens_of",
    "partition",
    "prefix_cache",
    "regroup",
    "repeated",
    "shared_loss",
    "suffix_logits",
]
