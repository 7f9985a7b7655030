"""chunks, workers -> workers that fit into memory, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evengrad.errors import InputError
from evengrad.lab.study import Cell, Study

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def fitting(study: Study, chunks: Sequence[list[Cell]], workers: int) -> int:
    """Returns how many workers can compute at once, by the study's own estimate; `workers` where it makes none.

    Raises:
        InputError: if one chunk alone is too large.
    """
    free = available(str(getattr(study, "device", "cpu")))
    needs = sorted((n for n in map(study.memory, chunks) if n is not None), reverse=True)
    if free is None or not needs:
        return workers
    if needs[0] > free:
        cells = max(len(chunk) for chunk in chunks)
        raise InputError(
            f"study {study.name!r} is too large for memory: computing up to {cells} cells at once needs about {_shown(needs[0])}, "
            f"{_shown(free)} are free. Take a smaller chunk, width, depth or number of samples (--set), or a larger machine"
        )
    return max(n for n in range(1, workers + 1) if sum(needs[:n]) <= free)


def available(device: str = "cpu") -> int | None:
    """Returns the bytes that can be used now, within the container's limit if there is one; None if this system does not tell."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(torch.device(device))[0] if torch.cuda.is_available() else None
    try:
        kibibytes = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())["MemAvailable"]
        free = 1024 * int(kibibytes.split()[0])
    except (OSError, KeyError):
        return None
    try:
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        used = int((_CGROUP / "memory.current").read_text()) - int(statistics["inactive_file"])  # cached files make room
        return max(0, min(free, int((_CGROUP / "memory.max").read_text()) - used))
    except (OSError, KeyError, ValueError):  # no container, or `max`: no limit
        return free


def _shown(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
