"""name or the user's own file -> torch tensors, split into training and test, the same on every call; and ways to draw from them."""

from evengrad.lab.data.arrays import own
from evengrad.lab.data.catalog import load, names
from evengrad.lab.data.downloads import cache_folder
from evengrad.lab.data.images import (
    CIFAR_CLASSES,
    DEBIAN_FASHION_MNIST,
    FASHION_CLASSES,
    cifar10,
    fashion_mnist,
    mnist,
    read_debian_fashion_mnist,
)
from evengrad.lab.data.points import blobs, moons, spirals, two_circles
from evengrad.lab.data.sampling import class_weights, few, few_index, fold_index, hold_out_index
from evengrad.lab.data.scaling import standardized
from evengrad.lab.data.sequences import adding, copy_memory, fashion_rows
from evengrad.lab.data.split import Split
from evengrad.lab.data.tables import breast_cancer, digits, wine

__all__ = [
    "CIFAR_CLASSES",
    "DEBIAN_FASHION_MNIST",
    "FASHION_CLASSES",
    "Split",
    "adding",
    "blobs",
    "breast_cancer",
    "cache_folder",
    "cifar10",
    "class_weights",
    "copy_memory",
    "digits",
    "fashion_mnist",
    "fashion_rows",
    "few",
    "few_index",
    "fold_index",
    "hold_out_index",
    "load",
    "mnist",
    "moons",
    "names",
    "own",
    "read_debian_fashion_mnist",
    "spirals",
    "standardized",
    "two_circles",
    "wine",
]
