"""last full run of each study -> docs/studies/NAME.md with its pictures, and the index of all of them.

Run `evengrad study run NAME` for each study first; `python scripts/write_study_docs.py [STORE]` runs none.
"""

from __future__ import annotations

import sys
from pathlib import Path

from evengrad.lab.page import write_docs, write_index
from evengrad.lab.recall import last_full, number_of
from evengrad.lab.rows import Store
from evengrad.lab.studies import discovered

DOCS = Path(__file__).parents[1] / "docs" / "studies"


def main() -> None:
    """Writes what there is, and names the studies that have no full run."""
    with Store(Path(sys.argv[1]) if len(sys.argv) > 1 else None, create=False) as store:
        results = last_full(store)
    for result in results:
        print(write_docs(result, DOCS))
    print(write_index(results, DOCS))
    missing = set(discovered()) - {result.study.name for result in results}
    for kind in sorted((discovered()[name] for name in missing), key=number_of):
        print(f"no full run of {kind.number} {kind.name} in {store.path}: evengrad study run {kind.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
