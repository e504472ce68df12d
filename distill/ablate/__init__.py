"""How much a prompt has to say of the tools: the same student trained each way, and compared."""

from distill.ablate.ablate import ablate
from distill.ablate.advice import advised
from distill.ablate.model import MODES, Ablated, Ablation, modes_of

__all__ = ["MODES", "Ablated", "Ablation", "ablate", "advised", "modes_of"]
