"""Networks to experiment with, as plain data that a seed makes weights of."""

from evengrad.lab.models.base import Net
from evengrad.lab.models.initialisers import INITIALISERS
from evengrad.lab.models.mlp import MLP, mlp
from evengrad.lab.models.parts import ACTIVATIONS, NORMS

__all__ = ["ACTIVATIONS", "INITIALISERS", "MLP", "NORMS", "Net", "mlp"]
