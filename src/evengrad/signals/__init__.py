"""Trace -> numbers: pure functions, numpy only."""

from evengrad.signals.depth import Slope, gradient_gain, gradient_slope, relative_profile, slope, slopes, trainable_depth

__all__ = ["Slope", "gradient_gain", "gradient_slope", "relative_profile", "slope", "slopes", "trainable_depth"]
