"""A patch is the user's own lines changed where they are found, a statement elsewhere, and a program that trains like the repaired one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evengrad.examine import diagnose_run
from evengrad.loading import load_module
from evengrad.patching import Patch, patch_of, write
from evengrad.remedies import discovered
from evengrad.training import Experiment, build, train
from evengrad.types import Finding, Proposal

HEAD = """import torch
from torch import nn
import torch.nn.functional as F
import evengrad as eg

draw = torch.Generator().manual_seed(0)
x = torch.randn(256, 6, generator=draw)
y = (x[:, 0] > 0).long()

"""
DEEP = """
def deep(sizes, activation):
    '''Not these: nn.Sigmoid(), lr=0.1'''
    layers = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b),   activation())]  # nn.Sigmoid()
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 2))


def unused(model):
    return nn.Sigmoid(), torch.optim.SGD(model.parameters(), lr=0.1)


experiment = eg.Experiment(
    lambda: deep([6] + [16] * 8, nn.Sigmoid), (x, y),
    nn.CrossEntropyLoss(), lambda m: torch.optim.SGD(m.parameters(), 1e-1, momentum=0.9), epochs=8, batch_size=32,
)
"""
STEP = """
class Net(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.a, self.b, self.c, self.drop = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 2), nn.Dropout(p)

    def forward(self, x):
        return self.c(self.drop(torch.sigmoid(self.b(F.sigmoid(self.a(x))))))


LR = 0.1
SETTINGS = "lr=0.1"


def optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=LR)


def step(net, batch, loss, opt):
    a, b = batch
    out = net(a)
    value = loss(out, b)
    value.backward()  # down
    opt.step()
    return value


experiment = eg.Experiment(Net, (x, y), nn.CrossEntropyLoss(), optimizer, batch_size=32, train_step=step)
"""
HEADS = """
def net():
    model = nn.Sequential(nn.Linear(6, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 2), nn.Sigmoid())
    return model


loss_fn = nn.CrossEntropyLoss()
experiment = eg.Experiment(net, (x, y), loss_fn, lambda model: torch.optim.SGD(params=model.parameters(), lr=0.1, weight_decay=1e-4))
"""


def program(folder: Path, text: str) -> tuple[Path, Experiment]:
    file = folder / f"{folder.name}_program.py"
    file.write_bytes(text.encode())
    return file, load(file)


def load(file: Path) -> Experiment:
    held = load_module(str(file), "a program").experiment
    assert isinstance(held, Experiment)
    return held


def proposals(experiment: Experiment, remedy: str, symptom: str | None = None, *, cause: str | None = None) -> list[Proposal]:
    """What a remedy proposes for an experiment that is said to have this trouble."""
    trace = diagnose_run(experiment, [], causes=False)[0].trace
    assert trace is not None
    finding = Finding(code="ANY001", symptom=symptom, severity="error", message="", cause=cause, steps=(3, 9))
    return list(discovered()[remedy]().propose(finding, trace))


def patched(file: Path, patch: Patch) -> Experiment:
    """The experiment of the program once the patch is written."""
    write(patch)
    return load(file)


def lines(patch: Patch) -> tuple[list[str], list[str]]:
    """The lines that go and those that come."""
    changed = [line for line in patch.text.splitlines() if not line.startswith(("---", "+++"))]
    return [line[1:].strip() for line in changed if line[:1] == "-"], [line[1:].strip() for line in changed if line[:1] == "+"]


SWAPPED = "lambda: eg.initialize_(deep([6] + [16] * 8, nn.Tanh)), (x, y),"
LITERAL = [  # program, remedy, trouble, the lines that come
    (DEEP, "swap_activation", {"symptom": "vanishing_gradient"}, [SWAPPED]),
    (DEEP, "initialize", {"symptom": "vanishing_gradient"}, ["lambda: eg.initialize_(deep([6] + [16] * 8, nn.Sigmoid)), (x, y),"]),
    (
        DEEP,
        "lower_rate",
        {"symptom": "loss_divergence"},
        ["nn.CrossEntropyLoss(), lambda m: torch.optim.SGD(m.parameters(), 0.01, momentum=0.9), epochs=8, batch_size=32,"],
    ),
    (
        STEP,
        "swap_activation",
        {"symptom": "vanishing_gradient"},
        [
            "return self.c(self.drop(F.tanh(self.b(F.tanh(self.a(x))))))",
            "experiment = eg.Experiment("
            "lambda: eg.initialize_(Net()), (x, y), nn.CrossEntropyLoss(), optimizer, batch_size=32, train_step=step)",
        ],
    ),
    (STEP, "lower_rate", {"symptom": "loss_divergence"}, ["LR = 0.01"]),
    (STEP, "standard_step", {"symptom": "loss_stuck"}, ["net.train()", "opt.zero_grad()"]),
    (STEP, "clip_norm", {"symptom": "loss_spike"}, ["nn.utils.clip_grad_norm_(net.parameters(), 1)"]),
    (STEP, "less_dropout", {"cause": "over_regularized"}, [None]),
    (
        STEP,
        "train_longer",
        {"cause": "undertrained"},
        ["experiment = eg.Experiment(Net, (x, y), nn.CrossEntropyLoss(), optimizer, batch_size=32, train_step=step, epochs=70)"],
    ),
    (
        HEADS,
        "swap_activation",
        {"symptom": "vanishing_gradient"},
        [
            "model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2), nn.Sigmoid())",
            "return eg.initialize_(model)",
        ],
    ),
    (
        HEADS,
        "drop_output_activation",
        {"cause": "redundant_output_activation"},
        ["model = nn.Sequential(nn.Linear(6, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 2), nn.Identity())"],
    ),
    (
        HEADS,
        "adam",
        {"symptom": "plateau"},
        [
            "experiment = eg.Experiment("
            "net, (x, y), loss_fn, lambda model: torch.optim.Adam(model.parameters(), lr=0.001, weight_decay=1e-4))"
        ],
    ),
    (
        HEADS,
        "momentum",
        {"symptom": "plateau"},
        [
            "experiment = eg.Experiment("
            "net, (x, y), loss_fn, lambda model: torch.optim.SGD(params=model.parameters(), lr=0.1, weight_decay=1e-4, momentum=0.9))"
        ],
    ),
    (
        HEADS,
        "cosine_rate",
        {"symptom": "oscillating_loss"},
        [
            "experiment = eg.Experiment(net, (x, y), loss_fn, lambda model: torch.optim.SGD(params=model.parameters(), lr=0.1, "
            "weight_decay=1e-4), scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20))"
        ],
    ),
]


@pytest.mark.parametrize(("text", "remedy", "trouble", "come"), LITERAL)
def test_a_change_is_made_in_the_users_own_lines_and_does_what_it_did(
    tmp_path: Path, text: str, remedy: str, trouble: dict[str, str], come: list[str | None]
) -> None:
    file, experiment = program(tmp_path, HEAD + text)
    proposal = proposals(experiment, remedy, **trouble)[0]
    patch = patch_of(experiment, [proposal], file=file)
    assert patch.literal == (proposal.summary,)
    gone, added = lines(patch)
    if come != [None]:
        assert added == come
    kept = [line for line in (HEAD + text).splitlines() if line.strip() not in gone]
    assert [line for line in patch.files[file].splitlines() if line.strip() not in added] == kept  # all else is as it was
    drawn = "eg.initialize_" in "".join(added)
    want, got = train(experiment.repaired([proposal])), train(patched(file, patch))
    if drawn:
        assert got.metric > want.metric - 0.2  # other random numbers
    else:
        np.testing.assert_allclose(got.losses, want.losses, rtol=1e-3)


def test_a_fixed_program_learns_what_the_stuck_one_did_not(tmp_path: Path) -> None:
    file, experiment = program(tmp_path, HEAD + DEEP)
    before = train(experiment).metric
    patch = patch_of(experiment, proposals(experiment, "swap_activation", symptom="vanishing_gradient")[:1], file=file)
    assert before < 0.6
    assert min(train(patched(file, patch), seed=seed).metric for seed in (0, 1)) > 0.85


@pytest.mark.parametrize(
    ("remedy", "trouble"), [("batch_norm", {"symptom": "vanishing_gradient"}), ("standardize_input", {"cause": "input_not_normalized"})]
)
def test_a_change_without_a_line_of_its_own_becomes_a_statement_that_trains_the_same_to_the_bit(
    tmp_path: Path, remedy: str, trouble: dict[str, str]
) -> None:
    file, experiment = program(tmp_path, (HEAD + DEEP).replace("generator=draw)", "generator=draw) * 50"))
    proposal = proposals(experiment, remedy, **trouble)[0]
    patch = patch_of(experiment, [proposal], file=file)
    assert patch.literal == ()
    assert patch.files[file].startswith(HEAD.replace("generator=draw)", "generator=draw) * 50") + DEEP)
    assert all(f"#   {line}" in patch.text for line in proposal.code.splitlines())
    want, got = train(experiment.repaired([proposal])), train(patched(file, patch))
    assert np.array_equal(want.losses, got.losses)
    assert want.metric == got.metric


def test_edits_and_a_statement_go_together(tmp_path: Path) -> None:
    file, experiment = program(tmp_path, HEAD + STEP)
    steps = proposals(experiment, "standard_step", symptom="loss_stuck")
    rates = proposals(experiment, "lower_rate", symptom="loss_divergence")[:1]
    norms = proposals(experiment, "layer_norm", symptom="vanishing_gradient")
    patch = patch_of(experiment, [*norms, *rates, *steps], file=file)
    assert patch.literal == (rates[0].summary, steps[0].summary)
    want, got = train(experiment.repaired([*norms, *rates, *steps])), train(patched(file, patch))
    np.testing.assert_allclose(got.losses, want.losses, rtol=1e-5)


def test_options_that_nobody_would_read_are_packed_and_still_the_same(tmp_path: Path) -> None:
    file, experiment = program(tmp_path, HEAD + DEEP)
    found = proposals(experiment, "batch_norm", symptom="vanishing_gradient")[0]
    many = {**found.options, "unused": [{"name": f"layer.{i}", "gain": float("inf")} for i in range(3000)]}
    proposal = Proposal(remedy=found.remedy, options=many, summary=found.summary, cause=found.cause)
    patch = patch_of(experiment, [proposal], file=file)
    assert len(patch.files[file]) < len(HEAD + DEEP) + 30_000
    assert patched(file, patch).repairs[0].options == many


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize("remedy", ["lower_rate", "batch_norm"])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_newlines_encoding_and_mode_of_the_file_stay(tmp_path: Path, newline: str, remedy: str, ending: str) -> None:
    text = "# -*- coding: latin-1 -*-\nword = 'gr\xfc\xdfe'\n" + HEAD + DEEP.rstrip("\n") + ending
    file = tmp_path / "latin.py"
    file.write_bytes(text.replace("\n", newline).encode("latin-1"))
    file.chmod(0o640)
    experiment = load(file)
    found = proposals(experiment, remedy, symptom="loss_divergence" if remedy == "lower_rate" else "vanishing_gradient")[0]
    odd = Proposal(remedy=remedy, options=found.options, summary=f"{found.summary} …", code=found.code)
    write(patch_of(experiment, [odd], file=file))
    content = file.read_bytes()
    assert "gr\xfc\xdfe".encode("latin-1") in content
    assert content.count(b"\n") == content.count(newline.encode())
    assert file.stat().st_mode & 0o777 == 0o640
    assert not list(tmp_path.glob(".latin*"))
    assert train(load(file)).losses[-1] == pytest.approx(train(experiment.repaired([odd])).losses[-1], rel=1e-3)


@pytest.mark.skipif(shutil.which("patch") is None, reason="there is no patch")
@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize("ending", ["", "\n"])
def test_the_diff_is_one_that_patch_takes(tmp_path: Path, newline: str, ending: str) -> None:
    file, experiment = program(tmp_path, (HEAD + DEEP.rstrip("\n") + ending).replace("\n", newline))
    found = [proposals(experiment, name, symptom="vanishing_gradient")[0] for name in ("swap_activation", "batch_norm")]
    patch = patch_of(experiment, found, file=file)
    done = subprocess.run(["patch", "-p1", "--binary"], input=patch.text.encode(), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    assert file.read_bytes() == patch.files[file].encode()


def test_a_network_in_a_file_beside_is_changed_there(tmp_path: Path) -> None:
    nets = tmp_path / "patched_nets.py"
    nets.write_text(
        "from torch import nn\n" + DEEP.partition("def unused")[0] + "def net():\n    return deep([6] + [16] * 8, nn.Sigmoid)\n"
    )
    main = "from patched_nets import net\n\nexperiment" + DEEP.partition("\nexperiment")[2]
    file, experiment = program(tmp_path, HEAD + main.replace("lambda: deep([6] + [16] * 8, nn.Sigmoid)", "net"))
    proposal = proposals(experiment, "swap_activation", symptom="vanishing_gradient")[0]
    patch = patch_of(experiment, [proposal], file=file)
    assert patch.literal == (proposal.summary,)
    assert list(patch.files) == [nets]
    assert lines(patch)[1] == ["import evengrad as eg", "return eg.initialize_(deep([6] + [16] * 8, nn.Tanh))"]
    assert sys.modules["patched_nets"].net is experiment.model  # the module that runs is left alone
    del sys.modules["patched_nets"]
    assert train(patched(file, patch)).metric > 0.85


def test_places_that_the_experiment_does_not_reach_stay(tmp_path: Path) -> None:
    file, experiment = program(tmp_path, HEAD + DEEP)
    swaps, rates = (
        proposals(experiment, *told)[:1] for told in (("swap_activation", "vanishing_gradient"), ("lower_rate", "loss_divergence"))
    )
    patch = patch_of(experiment, [*swaps, *rates], file=file)
    assert patch.literal == (swaps[0].summary, rates[0].summary)
    assert lines(patch)[0] == [line.strip() for line in DEEP.splitlines()[-3:-1]]


def test_an_edit_that_would_do_something_else_becomes_a_statement(tmp_path: Path) -> None:
    groups = "lambda m: torch.optim.SGD([{'params': m[0].parameters(), 'lr': 0.05}, {'params': m[2:].parameters()}], 1e-1, momentum=0.9)"
    text = HEAD + DEEP.replace("lambda m: torch.optim.SGD(m.parameters(), 1e-1, momentum=0.9)", groups)
    file, experiment = program(tmp_path, text)
    halved = Proposal(remedy="lower_rate", options={"factor": 0.1}, summary="lower", code="-lr=0.1\n+lr=0.01")
    patch = patch_of(experiment, [halved], file=file)
    assert patch.literal == ()
    assert np.array_equal(train(patched(file, patch)).losses, train(experiment.repaired([halved])).losses)


def test_without_a_file_there_is_a_statement_to_copy() -> None:
    made = Experiment(eval("lambda: nn.Linear(6, 2)", {"nn": nn}), (torch.zeros(4, 6), torch.zeros(4).long()), nn.CrossEntropyLoss(), sgd())
    proposal = Proposal(remedy="lower_rate", options={"factor": 0.1}, summary="lower", code="-lr=0.1\n+lr=0.01")
    patch = patch_of(made, [proposal], name="mine")
    assert patch.files == {}
    assert "mine = mine.repaired(" in patch.text
    scope = {"mine": made, "eg": __import__("evengrad")}
    exec(patch.text, scope)
    assert build(scope["mine"]).optimizer.param_groups[0]["lr"] == pytest.approx(0.01)  # type: ignore[arg-type, union-attr]


def sgd() -> Callable[[nn.Module], torch.optim.Optimizer]:
    return eval("lambda m: torch.optim.SGD(m.parameters(), 0.1)", {"torch": torch})  # type: ignore[no-any-return]


def test_the_file_of_the_functions_is_read_where_none_is_given(tmp_path: Path) -> None:
    file, experiment = program(tmp_path, HEAD + DEEP)
    found = [
        *proposals(experiment, "lower_rate", symptom="plateau")[:1],
        *proposals(experiment, "batch_norm", symptom="vanishing_gradient"),
    ]
    patch = patch_of(experiment, found)
    assert patch.literal == (found[0].summary,)
    assert "0.01, momentum" in patch.files[file]
    assert "experiment = experiment.repaired(" in patch.text


def test_nothing_of_the_program_s_surroundings_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noisy = (
        "import numpy as np\nnp.random.seed(0)\ntorch.manual_seed(0)\nprint('loaded')\nif __name__ == '__main__':\n    raise SystemExit\n"
    )
    file, experiment = program(tmp_path, HEAD + noisy + DEEP)
    content, found = file.read_bytes(), proposals(experiment, "swap_activation", symptom="vanishing_gradient")[:1]
    capsys.readouterr()
    torch.manual_seed(5)
    np.random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    assert patch_of(experiment, found, file=file).literal
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    assert capsys.readouterr().out == ""
    assert file.read_bytes() == content


def test_no_proposal_is_no_patch(tmp_path: Path) -> None:
    file, experiment = program(tmp_path, HEAD + DEEP)
    assert patch_of(experiment, [], file=file) == Patch(text="")


def test_an_experiment_that_a_block_or_a_tuple_names_gets_its_statement(tmp_path: Path) -> None:
    text = HEAD + DEEP.replace("experiment = eg.Experiment(", "if True:\n  other, experiment = 1, eg.Experiment(")
    file, experiment = program(tmp_path, text)
    found = proposals(experiment, "batch_norm", symptom="vanishing_gradient")
    patch = patch_of(experiment, found, file=file)
    assert np.array_equal(train(patched(file, patch)).losses, train(experiment.repaired(found)).losses)


def test_a_file_that_calls_other_things_by_our_names_is_not_edited(tmp_path: Path) -> None:
    text = (
        (HEAD + DEEP).replace("import evengrad as eg", "from evengrad import Experiment\neg = 3").replace("eg.Experiment(", "Experiment(")
    )
    file, experiment = program(tmp_path, text)
    found = proposals(experiment, "initialize", symptom="vanishing_gradient")[:1]
    patch = patch_of(experiment, found, file=file)
    assert patch.files == {}
    assert "experiment = experiment.repaired(" in patch.text


def test_a_change_of_several_kinds_is_made_whole(tmp_path: Path) -> None:
    file, experiment = program(tmp_path, HEAD + DEEP.replace("[16] * 8", "[16] * 24"))
    patch = patch_of(experiment, proposals(experiment, "isometry", cause="too_deep_no_skip")[:1], file=file)
    assert lines(patch)[1] == [
        "lambda: eg.isometry_(deep([6] + [16] * 24, nn.Tanh), x[:32]), (x, y),",
        "nn.CrossEntropyLoss(), lambda m: torch.optim.SGD(m.parameters(), 0.0042, momentum=0.9), epochs=8, batch_size=32,",
    ]
    assert train(experiment).metric < 0.6
    assert train(patched(file, patch)).metric > 0.9


def test_missing_imports_come_with_the_edit(tmp_path: Path) -> None:
    text = (HEAD + DEEP).replace("import evengrad as eg", "from evengrad import Experiment").replace("eg.Experiment(", "Experiment(")
    file, experiment = program(tmp_path, text)
    patch = patch_of(experiment, proposals(experiment, "initialize", symptom="vanishing_gradient")[:1], file=file)
    assert patch.literal
    assert lines(patch)[1][0] == "import evengrad as eg"
    patched(file, patch)


def test_a_schedule_that_would_not_stretch_becomes_a_statement(tmp_path: Path) -> None:
    text = HEAD + HEADS.replace("weight_decay=1e-4)", "weight_decay=1e-4), scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 10)")
    file, experiment = program(tmp_path, text)
    found = proposals(experiment, "train_longer", cause="undertrained")[:1]
    patch = patch_of(experiment, found, file=file)
    assert patch.literal == ()
    constant = patch_of(experiment, proposals(experiment, "constant_rate", cause="scheduler_bug"), file=file)
    assert "scheduler=None)" in lines(constant)[1][0]


def test_the_page_about_the_patch_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "patch.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (diff,) = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(block, scope)
    assert diff in capsys.readouterr().out
    assert scope["before"].metric < 0.6
    assert scope["after"].metric > 0.85
