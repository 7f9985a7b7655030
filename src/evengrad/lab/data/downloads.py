"""published file -> its path on this machine: from the cache, or downloaded there and kept only if the checksum is right."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from evengrad.errors import InputError

TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file as its authors published it.

    Attributes:
        path: Where it lies in the cache, relative to `cache_folder()`.
        md5: Checksum of the file, in hex: MD5 because that is what is published.
        urls: Where it is to be had, tried in turn.
    """

    path: str
    md5: str
    urls: tuple[str, ...]


def cache_folder() -> Path:
    """Returns the folder that downloads are kept in: EVENGRAD_CACHE, else `evengrad` in XDG_CACHE_HOME, else `~/.cache/evengrad`."""
    if own := os.environ.get("EVENGRAD_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evengrad"


def fetch(file: Published, *, otherwise: str = "") -> Path:
    """Returns the path of a published file, downloading it first if the cache lacks it.

    A download goes to a file of its own beside its place and is renamed when its checksum is right, so that no reader ever sees part of it,
    and processes that download at once do not meet.

    Args:
        file: What is wanted.
        otherwise: What else the user can do, said when the file cannot be had.

    Raises:
        InputError: if it is neither cached nor to be had, naming what was tried; or if the cached file is not the published one.
    """
    path = cache_folder() / file.path
    if path.exists():
        if (found := _md5(path)) != file.md5:
            raise InputError(
                f"{path} is not the published file: expected MD5 {file.md5}, found {found}. Delete it, and it is downloaded anew"
            )
        return path
    failures = []
    for url in file.urls:
        try:
            return _download(url, file.md5, path)
        except (OSError, HTTPException, _WrongFileError) as error:
            failures.append(f"{url} ({error or type(error).__name__})")
    hint = f". {otherwise}" if otherwise else ""
    raise InputError(
        f"{path.name} is not in the cache and could not be downloaded; tried {', '.join(failures)}. Put the file at {path} by hand; "
        f"EVENGRAD_CACHE names another folder than {cache_folder()}{hint}"
    )


class _WrongFileError(Exception):
    """What came is not what was published."""


def _download(url: str, md5: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.md5(usedforsecurity=False), 0
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as target, urllib.request.urlopen(url, timeout=TIMEOUT) as source:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        if digest.hexdigest() != md5:
            raise _WrongFileError(f"expected MD5 {md5}, found {digest.hexdigest()} in {size} bytes")
        Path(part).chmod(0o644)  # a temporary file is the owner's alone, a cache may be shared
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
