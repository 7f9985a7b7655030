"""Proposals -> edits of the user's own files, or ready statements that do the same."""

from evengrad.patching.patch import Patch, patch_of, write

__all__ = ["Patch", "patch_of", "write"]
