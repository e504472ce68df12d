"""Ablation of the tool declarations: the same student trained in each mode, and compared."""

from distill.ablate.ablate import ablate
from distill.ablate.advice import recommend
from distill.ablate.model import MODES, Ablation, ModeResult, parse_modes

__all__ = ["MODES", "Ablation", "ModeResult", "ablate", "parse_modes", "recommend"]
