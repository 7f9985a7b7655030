from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import evengrad as eg

ROOT = Path(__file__).parents[1]
VERBS = [name for name in eg.__all__ if name.islower() and name not in {*eg._PACKAGES}]


def run(code: str) -> str:
    """Runs code in a fresh interpreter, where warnings are errors as in these tests, and returns what it printed."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def submodules() -> list[str]:
    return sorted(info.name for info in pkgutil.walk_packages(eg.__path__, "evengrad.") if not info.name.endswith("__main__"))


def test_import_does_not_import_torch() -> None:
    heavy = "{'torch', 'numpy', 'rich', 'typer'}"
    assert run(f"import sys, evengrad; dir(evengrad); evengrad.__version__; print(sorted({heavy} & set(sys.modules)))") == "[]"


@pytest.mark.parametrize("module", ["rules", "report", "signals", "types", "errors", "registry"])
def test_judging_and_reporting_do_not_import_torch(module: str) -> None:
    code = "import sys, evengrad.{0} as m, pkgutil, importlib; [importlib.import_module(i.name) for i in "
    code += "pkgutil.walk_packages(getattr(m, '__path__', []), m.__name__ + '.')]; print('torch' in sys.modules)"
    assert run(code.format(module)) == "False"


@pytest.mark.parametrize("module", submodules())
def test_every_submodule_imports(module: str) -> None:
    importlib.import_module(module)


@pytest.mark.parametrize("name", eg.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(eg, name) is not None
    assert name in dir(eg)


def test_no_submodule_shadows_a_verb() -> None:
    for module in submodules():
        importlib.import_module(module)
    shadowed = [name for name in VERBS if not callable(getattr(eg, name))]
    assert not shadowed
    assert not {module.split(".")[1] for module in submodules()} & set(VERBS)


def test_type_checkers_see_the_names_that_programs_see() -> None:
    source = (ROOT / "src/evengrad/__init__.py").read_text()
    block = source.split("if TYPE_CHECKING:")[1].split("__version__")[0]
    seen = {name.strip() for line in block.strip().splitlines() for name in line.split(" import ")[1].split(",")}
    assert seen == set(eg.__all__)
    assert set(eg._HOME) | set(eg._PACKAGES) == set(eg.__all__)


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'evengrad' has no attribute 'chek'"):
        eg.chek  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.slow
def test_wheel_holds_everything_that_git_holds(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        metadata = archive.read(f"evengrad-{eg.__version__}.dist-info/METADATA").decode()
    source = ROOT / "src"
    expected = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert expected <= inside
    assert {"evengrad/lab/_data/fashion_mnist.npz", "evengrad/lab/_data/LICENSE-fashion-mnist", "evengrad/py.typed"} <= inside
    assert any(name.startswith("evengrad/report/page/") for name in inside)
    assert f"Version: {eg.__version__}" in metadata
    assert {f"evengrad-{eg.__version__}.dist-info/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= inside
    assert not [name for name in inside if name.startswith(("tests", "scripts", "benchmarks"))]


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_skipped_test_fails_the_run_only_in_continuous_integration(tmp_path: Path, ci: str, code: int) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_two.py").write_text("import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no browser')\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"CI": ci}, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stdout
    assert ("test_two.py::test_b: Skipped: no browser" in done.stdout) == bool(ci)
    assert "1 passed, 1 skipped" in done.stdout.splitlines()[-1]
