"""A folder of runs -> a local page over it: runs, comparisons, studies, rules and a playground. Starts without torch."""

from evengrad.serve.server import serve

__all__ = ["serve"]
