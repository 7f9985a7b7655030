"""What a run measures, as it goes -> one SQLite file that outlives its process, and back -> a Trace."""

from evengrad.store.folder import StoredRun, default_folder, find_run, list_runs
from evengrad.store.layout import SUFFIX
from evengrad.store.opening import MAGIC
from evengrad.store.reader import read_run
from evengrad.store.writer import RunFile, StoreError

__all__ = ["MAGIC", "SUFFIX", "RunFile", "StoreError", "StoredRun", "default_folder", "find_run", "list_runs", "read_run"]
