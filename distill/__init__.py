"""Move a team's routing workflow, tools and rules, into a small model.

    import distill

    distill.write_starter("shop")  # or rules of your own
    run = distill.make_data("shop/rules.md")
    run.train()
    run.evaluate()["gold"]["tuned"].tool_accuracy
    run.route("where is my parcel?").calls

The names below are the library; everything else may change between versions.
"""

from typing import TYPE_CHECKING, Any

from distill.version import __version__

__all__ = [
    "DistillError",
    "Run",
    "Workflow",
    "__version__",
    "load_workflow",
    "make_data",
    "open_run",
    "write_starter",
]

if TYPE_CHECKING:
    from distill.api import Run, load_workflow, make_data, open_run, write_starter
    from distill.errors import DistillError
    from distill.workflow.model import Workflow


def __getattr__(name: str) -> Any:
    # Loaded when first used (PEP 562): `import distill` alone takes milliseconds.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from distill.errors import require_supported_platform

    require_supported_platform()
    from distill import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
