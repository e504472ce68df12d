"""report: a run folder becomes report.json and report.md."""

from __future__ import annotations

from pathlib import Path

from distill.files import write_json, write_text
from distill.records import Json
from distill.report.collect import collect
from distill.report.markdown import render
from distill.report.model import Report
from distill.report.verdict import verdict
from distill.run import layout

__all__ = ["Report", "collect", "render", "verdict", "write_report"]


def write_report(path: Path) -> Json:
    """Write report.json and report.md into the run at `path`; the counts for the manifest."""
    report = collect(path)
    write_json(path / layout.REPORT, report.model_dump(mode="json"))
    write_text(path / layout.REPORT_PAGE, render(report))
    return {"missing": list(report.missing), "verdict": verdict(report)}
