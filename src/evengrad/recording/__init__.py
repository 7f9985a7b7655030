"""A rig and its batches -> Trace: one measured pass, or the sampled steps of a whole training."""

from evengrad.recording.one_pass import trace_of
from evengrad.recording.recording import Recording
from evengrad.recording.rewind import Snapshot

__all__ = ["Recording", "Snapshot", "trace_of"]
