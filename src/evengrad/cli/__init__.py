"""Arguments -> calls -> exit code; no logic."""

from evengrad.cli.app import main

__all__ = ["main"]
