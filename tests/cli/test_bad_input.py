"""What does not fit -> exit code 2, one line that says what was expected, what came and what to do, and nothing half-written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from evengrad.errors import UnknownNameError
from evengrad.rules import discovered

HEAD = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8").split('HEAD = """')[1].split('"""')[0]
GOOD = "experiment = eg.Experiment(net, (x, y), nn.CrossEntropyLoss(), sgd)\n"
VERBS = ("check", "diagnose", "fix")
Run = Callable[..., Any]  # fixtures `cli` and `shell`: arguments -> code, out, err


@dataclass(frozen=True)
class Bad:
    """A file, the command's other arguments, and what the last line of the message must hold, as regular expressions."""

    body: str
    says: tuple[str, ...]
    target: str = "bad.py:experiment"
    options: tuple[str, ...] = ()
    users_traceback: tuple[str, ...] = ()  # what the user's own traceback must show
    verbs: tuple[str, ...] = field(default=VERBS)


def made(model: str = "net", data: str = "(x, y)", loss: str = "nn.CrossEntropyLoss()", optimizer: str = "sgd", **more: str) -> str:
    options = "".join(f", {k}={v}" for k, v in more.items())
    return f"experiment = eg.Experiment({model}, {data}, {loss}, {optimizer}{options})\n"


FORWARD = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x):
        raise ValueError("my own trouble")

"""

CASES = {
    "no such file": Bad(GOOD, ("there is no file 'nowhere.py'", "expected FILE.py:NAME", "stuck.py:experiment"), "nowhere.py:experiment"),
    "a folder": Bad(GOOD, ("there is no file 'sub'", "expected FILE.py:NAME"), "sub:experiment"),
    "not a Python file": Bad(GOOD, ("'notes.txt' is not a Python file", "expected FILE.py:NAME"), "notes.txt:experiment"),
    "no such attribute": Bad(GOOD, ("no attribute of bad.py is called 'experimnt'", "Did you mean 'experiment'"), "bad.py:experimnt"),
    "a model": Bad("experiment = net()\n", ("bad.py:experiment is a Sequential", r"expected an evengrad.Experiment\(model, data")),
    "the class": Bad("experiment = eg.Experiment\n", ("bad.py:experiment is the class", r"expected an evengrad.Experiment\(model, data")),
    "a subclass": Bad("class experiment(eg.Experiment): pass\n", ("is the class 'experiment'", "expected an evengrad.Experiment")),
    "syntax error": Bad(
        "def broken(:\n    pass\n", ("bad.py raised SyntaxError while it was loaded",), users_traceback=("bad.py", "def broken(:", "^")
    ),
    "raises at import": Bad(
        "def load():\n    return {}['images']\n\nload()\n" + GOOD,
        ("bad.py raised KeyError while it was loaded: 'images'",),
        users_traceback=("Traceback (most recent call last)", "bad.py", "in load", "return {}['images']", "KeyError: 'images'"),
    ),
    "exits at import": Bad(GOOD + "raise SystemExit(0)\n", ("bad.py ended the program", "while it was loaded", "__main__")),
    "missing import": Bad(
        "import no_such_package_at_all\n", ("bad.py raised ModuleNotFoundError",), users_traceback=("import no_such_package_at_all",)
    ),
    "forward raises": Bad(
        FORWARD + made("Net"),
        ("the model's forward raised ValueError in forward", "my own trouble", r"\(\d+, 6\)"),
        users_traceback=("Traceback", 'raise ValueError("my own trouble")', "ValueError: my own trouble"),
    ),
    "shapes do not fit": Bad(
        made("lambda: nn.Sequential(nn.Linear(5, 2))"),
        ("the model's forward raised RuntimeError", r"inputs of shape \(64, 6\)", "cannot be multiplied"),
        users_traceback=("RuntimeError",),
    ),
    "model raises": Bad(
        "def net():\n    return nn.Linear(6, 'two')\n" + GOOD,
        ("Experiment's model raised TypeError",),
        users_traceback=("return nn.Linear(6, 'two')",),
    ),
    "optimizer raises": Bad(
        made(optimizer="lambda m: torch.optim.SGD(m.parameters(), lr=-1.0)"),
        ("Experiment's optimizer raised ValueError: Invalid learning rate",),
        users_traceback=("lr=-1.0",),
    ),
    "scheduler raises": Bad(
        made(scheduler="lambda o: torch.optim.lr_scheduler.StepLR(o)"),
        ("Experiment's scheduler raised TypeError",),
        users_traceback=("StepLR(o)",),
    ),
    "data raise": Bad(
        "def batches():\n    raise OSError('disk on fire')\n    yield\n" + made(data="batches"),
        ("Experiment's data raised OSError: disk on fire",),
        users_traceback=("raise OSError('disk on fire')",),
    ),
    "metric raises": Bad(
        "def score(model):\n    raise ZeroDivisionError('no samples')\n" + made(metric="score"),
        ("Experiment's metric raised ZeroDivisionError: no samples",),
        users_traceback=("raise ZeroDivisionError('no samples')",),
        verbs=("diagnose", "fix"),
    ),
    "train_step raises": Bad(
        "def step(model, batch, loss_fn, optimizer):\n    raise RuntimeError('bad step')\n" + made(train_step="step"),
        ("Experiment's train_step raised RuntimeError: bad step",),
        users_traceback=("raise RuntimeError('bad step')",),
        verbs=("diagnose", "fix"),
    ),
    "model is no module": Bad(made("lambda: 3"), (r"model\(\) must return an nn.Module; got int",)),
    "model is a module": Bad(
        made("net()"),
        ("Experiment's model must be a function", "lambda: MyModel()".replace("(", r"\(").replace(")", r"\)"), "got Sequential"),
        users_traceback=("experiment = eg.Experiment(net()",),
    ),
    "optimizer is none": Bad(made(optimizer="lambda m: None"), ("must return a torch.optim.Optimizer; got NoneType",)),
    "loss is no scalar": Bad(
        made(loss="nn.CrossEntropyLoss(reduction='none')"),
        ("the loss must be a scalar tensor", r"got a tensor of shape \(64,\)", r"\.mean\(\)"),
    ),
    "loss is a number": Bad(made(loss="lambda o, t: 0.5"), ("the loss must be a scalar tensor", "got a float")),
    "loss does not fit": Bad(
        made(loss="nn.MSELoss()", data="(x, torch.zeros(64, 3))"),
        ("the loss does not accept these outputs and targets", r"outputs \(64, 2\) float32, targets \(64, 3\) float32"),
    ),
    "empty data": Bad(made(data="(x[:0], y[:0])"), ("the data are empty", "expected at least one sample", "Look at how they are loaded")),
    "no batch": Bad(made(data="lambda: []"), ("the data are empty", "no batch came")),
    "as many targets as inputs": Bad(made(data="(x, y[:10])"), ("x has 64 samples but y has 10",)),
    "a loader": Bad(
        made(data="torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y))"),
        ("data must be .*got DataLoader", "lambda: loader"),
    ),
    "data of words": Bad(made(data="(['a'] * 64, y)"), ("x must be numbers", "got list")),
    "a batch of three": Bad(made(data="lambda: [(x, y, y)]"), (r"a batch must be a pair \(inputs, targets\); got a tuple of 3",)),
    "nothing to train": Bad(
        "def net():\n    return nn.Linear(6, 2).requires_grad_(False)\n" + GOOD, ("no parameter with requires_grad", "Unfreeze")
    ),
    "labels too large": Bad(made(data="(x, y + 5)"), ("Labels run from 5 to 6", "the model has 2 outputs", r"expected labels in \[0, 1\]")),
    "labels negative": Bad(made(data="(x, y - 1)"), ("Labels run from -1 to 0", "the model has 2 outputs")),
    "all inputs NaN": Bad(made(data="(x * float('nan'), y)"), ("every input value is NaN or infinite", "Look at how the data are loaded")),
    "no such metric": Bad(
        made(metric="'acuracy'"),
        ("metric must be 'auto', 'accuracy', 'loss' or a function of the model; got 'acuracy'",),
        users_traceback=("acuracy",),
    ),
    "no GPU": Bad(GOOD, ("device 'cuda' cannot be used", "no CUDA device", "Use device='cpu'"), options=("--device", "cuda")),
    "no such device": Bad(GOOD, ("device 'gpu' cannot be used", "Use device='cpu'"), options=("--device", "gpu")),
    "a folder that is not there": Bad(
        GOOD, ("there is no folder 'nowhere' to write r.html into", "Make it"), options=("-o", "nowhere/r.html")
    ),
    "a folder as the report": Bad(GOOD, ("'sub' cannot be written", "is a folder"), options=("-o", "sub")),
    "a device that cannot be written": Bad(
        GOOD, ("'/proc/r.html' cannot be written", "Give another place"), options=("-o", "/proc/r.html")
    ),
    "wrong severity": Bad(
        GOOD, ("no severity is called 'eror'. Did you mean 'error'",), options=("--fail-on", "eror"), verbs=("check", "diagnose")
    ),
    "wrong code": Bad(
        GOOD, ("no rule is called 'VAN01'. Did you mean 'VAN001'",), options=("--select", "VAN01"), verbs=("check", "diagnose")
    ),
    "wrong code to ignore": Bad(GOOD, ("no rule is called 'XXX'",), options=("--ignore", "XXX"), verbs=("check", "diagnose")),
}
RUNS = [pytest.param(verb, bad, id=f"{verb}: {name}") for name, bad in CASES.items() for verb in bad.verbs]


@pytest.mark.parametrize(("verb", "bad"), RUNS)
def test_bad_input_is_refused(verb: str, bad: Bad, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(HEAD + bad.body, encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no Python", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    before = sorted(tmp_path.rglob("*"))
    options = bad.options if "-o" in bad.options else (*bad.options, "-o", "report.html")
    done = cli(verb, bad.target, *options)
    lines = done.err.rstrip().splitlines()
    assert done.code == 2, done.err
    assert done.out == ""
    assert lines[-1].startswith("error: ")
    for pattern in bad.says:
        assert re.search(pattern, lines[-1]), f"{pattern!r} is not in {lines[-1]!r}"
    for part in bad.users_traceback:
        assert part in "\n".join(lines[:-1]), done.err
    if not bad.users_traceback:
        assert "Traceback" not in done.err
    assert "/src/evengrad/" not in done.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("verb", [*VERBS, "demo"])
@pytest.mark.parametrize("place", ["nowhere/r.html", "sub", "/proc/r.html"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    verb: str, place: str, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "bad.py").write_text("raise AssertionError('this must not run')\n", encoding="utf-8")
    done = cli(verb, *(["bad.py"] if verb != "demo" else []), "-o", place)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert "this must not run" not in done.err
    assert len(done.err.splitlines()) == 1


def test_a_report_that_is_there_stays_if_the_input_is_bad(tmp_path: Path, cli: Run) -> None:
    report = tmp_path / "r.html"
    report.write_text("old", encoding="utf-8")
    assert cli("check", str(tmp_path / "no.py"), "-o", str(report)).code == 2
    assert report.read_text(encoding="utf-8") == "old"


def test_the_users_own_frames_are_shown_and_no_others(tmp_path: Path, cli: Run) -> None:
    (tmp_path / "bad.py").write_text(HEAD + FORWARD + made("Net"), encoding="utf-8")
    frames = [line for line in cli("check", str(tmp_path / "bad.py")).err.splitlines() if line.startswith("  File ")]
    assert len(frames) == 1
    assert "bad.py" in frames[0]
    assert "in forward" in frames[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "VAN01"], "no rule is called 'VAN01'. Did you mean 'VAN001'"),
        (["explain", ""], "no rule is called ''"),
        (["chek", "x.py"], "No such command 'chek'"),
        (["check"], "Missing argument"),
        (["check", "x.py", "--nonsense"], "No such option"),
        (["check", "x.py", "--seed", "zero"], "unable to parse string as an integer"),
        (["fix", "x.py", "--seeds", "0"], "greater than or equal to 1"),
        (["fix", "x.py", "--max-remedies", "0"], "greater than or equal to 1"),
    ],
)
def test_wrong_usage_is_explained(arguments: list[str], says: str, cli: Run) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert says in " ".join(done.err.replace("│", " ").split())


def test_an_unknown_code_names_the_known_ones(cli: Run) -> None:
    assert all(code in cli("explain", "nothing").err for code in discovered())
    assert UnknownNameError.__mro__[1].__name__ == "EvengradError"


def test_all_bad_input_in_a_process_of_its_own_ends_with_two_and_no_traceback_of_ours(tmp_path: Path, shell: Run) -> None:
    (tmp_path / "bad.py").write_text(HEAD + FORWARD + made("Net"), encoding="utf-8")
    done = shell("check", "bad.py", cwd=tmp_path)
    assert done.code == 2
    assert "evengrad" not in done.err.replace("evengrad.Experiment", "")
    assert done.err.rstrip().splitlines()[-1].startswith("error: the model's forward raised ValueError")
