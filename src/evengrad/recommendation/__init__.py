"""Experiment -> which activation, initialiser, norm and rate suit it, by short trials."""

from evengrad.recommendation.result import Effect, Inversion, Recommendation, Row
from evengrad.recommendation.trials import recommend

__all__ = ["Effect", "Inversion", "Recommendation", "Row", "recommend"]
