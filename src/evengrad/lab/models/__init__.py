"""Networks to experiment with, as plain data that a seed makes weights of."""

from evengrad.lab.models.base import Net
from evengrad.lab.models.cnn import CNN
from evengrad.lab.models.initialisers import INITIALISERS
from evengrad.lab.models.mlp import MLP, mlp
from evengrad.lab.models.parts import ACTIVATIONS, NORMS
from evengrad.lab.models.recurrent import Recurrent
from evengrad.lab.models.residual import ResidualCNN, ResidualMLP
from evengrad.lab.models.transformer import Transformer

__all__ = ["ACTIVATIONS", "CNN", "INITIALISERS", "MLP", "NORMS", "Net", "Recurrent", "ResidualCNN", "ResidualMLP", "Transformer", "mlp"]
