"""Trace -> numbers: pure functions, numpy only."""

from evengrad.signals.depth import Slope, gradient_gain, gradient_slope, relative_profile, slope, slopes, trainable_depth
from evengrad.signals.updates import update_ratio

__all__ = ["Slope", "gradient_gain", "gradient_slope", "relative_profile", "slope", "slopes", "trainable_depth", "update_ratio"]
