"""name or the user's own file -> torch tensors, split into training and test, the same on every call."""

from evengrad.lab.data.catalog import load, names
from evengrad.lab.data.images import DEBIAN_FASHION_MNIST, FASHION_CLASSES, fashion_mnist, read_debian_fashion_mnist
from evengrad.lab.data.points import two_circles
from evengrad.lab.data.split import Split
from evengrad.lab.data.tables import breast_cancer, digits, wine

__all__ = [
    "DEBIAN_FASHION_MNIST",
    "FASHION_CLASSES",
    "Split",
    "breast_cancer",
    "digits",
    "fashion_mnist",
    "load",
    "names",
    "read_debian_fashion_mnist",
    "two_circles",
    "wine",
]
