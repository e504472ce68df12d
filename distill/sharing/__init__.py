"""The beginning that rows share, computed once: for training and for evaluation."""

from distill.sharing.cached import (
    IGNORE_INDEX,
    LossFn,
    PrefixBatch,
    expand_cache,
    group_by_prefix,
    initialized_layers,
    prefix_cache,
    shared_loss,
    suffix_logits,
)
from distill.sharing.flat import flat_loss
from distill.sharing.groups import Group, partition
from distill.sharing.plain import bidirectional_start_ids

__all__ = [
    "IGNORE_INDEX",
    "Group",
    "LossFn",
    "PrefixBatch",
    "bidirectional_start_ids",
    "expand_cache",
    "flat_loss",
    "group_by_prefix",
    "initialized_layers",
    "partition",
    "prefix_cache",
    "shared_loss",
    "suffix_logits",
]
