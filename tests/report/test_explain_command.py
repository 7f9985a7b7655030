"""`evengrad explain`: words on the terminal, pages with pictures in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from evengrad.cli.explain import explain
from evengrad.errors import InputError, UnknownNameError
from evengrad.rules import discovered


def test_words_are_printed_and_the_page_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain("van001", output=tmp_path / "van.html")
    out, err = capsys.readouterr()
    assert out.startswith("VAN001: ")
    assert "  healthy  " in out
    assert err.startswith("page: ")
    assert "<svg" in (tmp_path / "van.html").read_text("utf-8")


def test_all_pages_go_to_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(output=tmp_path / "pages", every=True)
    assert {p.stem for p in (tmp_path / "pages").iterdir()} == {"index", "activations", "initialisers", *discovered()}
    assert "index.html" in capsys.readouterr().err


def test_pictures_need_a_file(tmp_path: Path) -> None:
    explain("Activations", output=tmp_path / "a.html")
    with pytest.raises(InputError, match=r"with -o FILE\.html"):
        explain("activations")


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'VAN001'"):
        explain("VAN01")
    for code, output in (("VAN001", tmp_path), ("", None)):
        with pytest.raises(InputError, match="-o DIR"):
            explain(code, output=output, every=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="needs a folder"):
        explain(output=tmp_path / "file", every=True)
