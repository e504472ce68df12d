"""What validate, dedup and balance have in common: in = kept + rejected."""

from __future__ import annotations

from collections import Counter

from distill.records import Example, Json, Sifted
from distill.run import layout
from distill.stages.stage import Context


def write_sifted(context: Context, sieve: str, sifted: Sifted[Example]) -> Json:
    """Write what a sieve kept and rejected; the counts for the manifest."""
    context.write(layout.EXAMPLES[sieve], sifted.kept)
    context.write(layout.REJECTED[sieve], sifted.rejected)
    reasons = Counter(rejection.reason.value for rejection in sifted.rejected)
    return {
        "in": len(sifted.kept) + len(sifted.rejected),
        "kept": len(sifted.kept),
        "rejected": dict(sorted(reasons.items())),
    }
