"""Very deep networks of equal layers, whose weights are stacked along depth: signal, gradients and training by hand-written passes."""

from evengrad.lab.deep.fixup import FixupBlocks
from evengrad.lab.deep.layers import Layers, TanhConv, TanhLinear
from evengrad.lab.deep.network import DeepNet
from evengrad.lab.deep.training import DeepRun, Descent, centred, train

__all__ = ["DeepNet", "DeepRun", "Descent", "FixupBlocks", "Layers", "TanhConv", "TanhLinear", "centred", "train"]
