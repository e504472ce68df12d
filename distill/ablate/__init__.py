"""How much a prompt has to say of the tools: the same student trained each way, and compared."""

from distill.ablate.advice import advised
from distill.ablate.model import MODES, Ablated, Ablation, modes_of
from distill.ablate.tables import ablation_table
from distill.ablate.work import ablate

__all__ = ["MODES", "Ablated", "Ablation", "ablate", "ablation_table", "advised", "modes_of"]
