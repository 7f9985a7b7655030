"""Optuna's trials -> trained a batch at a time as one network, stopped by gradient health before the loss shows it."""

from evengrad.lab.search.halving import Halving
from evengrad.lab.search.health import Health
from evengrad.lab.search.result import SearchResult, Tried
from evengrad.lab.search.run import search

__all__ = ["Halving", "Health", "SearchResult", "Tried", "search"]
