"""Watching a training that runs: hooks that change nothing, columns on sampled steps, guards, the first bad operation."""
