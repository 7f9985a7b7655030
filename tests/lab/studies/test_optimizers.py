"""S7: paths equal torch.optim's and the textbook's, a rate is chosen on seeds of their own, the answer says who never arrives."""

import numpy as np
import pytest
import torch

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab.studies.optimizers import METHODS, REACHED, SURFACES, Optimizers, parsed
from evengrad.lab.study import Cell, Row, Rows
from evengrad.lab.surfaces import descend

TORCH = {
    "SGD": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "NAG": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "Adagrad": (torch.optim.Adagrad, {}),
    "RMSprop": (torch.optim.RMSprop, {"alpha": 0.9}),
    "Adadelta": (torch.optim.Adadelta, {}),
    "Adam": (torch.optim.Adam, {}),
    "AdamW": (torch.optim.AdamW, {}),
}


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("name", METHODS)
def test_a_path_is_the_one_that_torch_takes(name, surface):
    s, (kind, numbers) = SURFACES[surface], TORCH[name]
    starts = s.starts([0, 1], 0.1)
    found = descend(s, starts, [METHODS[name](lr=0.003), METHODS[name](lr=0.001)], 10)
    for path, start, rate in zip(found, starts, (0.003, 0.001), strict=True):
        point = torch.nn.Parameter(start.clone())
        optimizer = kind([point], lr=rate, **numbers)
        for expected in path:
            torch.testing.assert_close(point.detach(), expected, rtol=1e-9, atol=1e-12)  # double precision, another order of sums
            optimizer.zero_grad()
            s.f(*point).backward()
            optimizer.step()


@pytest.mark.parametrize("surface", SURFACES.values())
def test_a_surface_is_flat_at_its_minimum_and_nowhere_lower(surface):
    at = torch.tensor(surface.minimum, dtype=torch.float64, requires_grad=True)
    surface.f(*at).backward()
    assert at.grad.abs().max() < 1e-12
    left, right, bottom, top = surface.box
    grid = torch.cartesian_prod(torch.linspace(left, right, 101), torch.linspace(bottom, top, 101)).double()
    assert (surface.f(*grid.unbind(1)) >= surface.f(*at.detach()) - 1e-12).all()


def rows_of(arm, seeds=2, **fields):
    study = Optimizers(**fields)
    return study.compute([Cell(arm, seed) for seed in range(seeds)])


def test_the_textbooks_example_is_met_from_its_start():
    """Gradient descent at 0.4 oscillates, at 0.6 diverges, momentum 0.5 at 0.6 converges: digits as printed in the book."""
    for optimizer in {p.arm["optimizer"] for p in Optimizers.published}:
        (row,) = rows_of({"task": "bowl", "optimizer": optimizer}, seeds=1)
        for p in Optimizers.published:
            if p.arm["optimizer"] == optimizer:
                assert row.values[p.value] == pytest.approx(p.number, abs=2e-6)  # epsilon stands inside the root there


def test_steps_to_target_are_those_after_which_it_stays_there():
    for optimizer in ("momentum(0.5) at 0.6", "SGD at 0.4", "SGD at 0.6", "Adam at 0.4"):
        for row in rows_of({"task": "bowl", "optimizer": optimizer}):
            heights, steps = row.series["heights"], row.values["steps_to_target"]
            low = heights <= REACHED * heights[0]
            if np.isnan(steps):
                assert not low[-1]
            else:
                assert low[int(steps) :].all()
                assert not low[int(steps) - 1]


def test_the_rate_is_that_which_serves_the_worst_of_the_seeds_for_tuning():
    """The first rate arrives after 10 steps from one start and never from another, the second after 50 from each, the third is less low."""
    ends = [(10, 0.0), (np.nan, 9.0), (50, 0.1), (40, 0.1), (50, 0.2), (40, 0.2)]
    found = [({"steps_to_target": steps, "height": height}, {}) for steps, height in ends]
    assert Optimizers(rates=(1.0, 2.0, 3.0), tuning=2)._costs(found) == [(np.inf, 9.0), (50, 0.1), (50, 0.2)]


def test_seeds_that_choose_a_rate_are_not_reported(monkeypatch):
    asked = []
    descended = Optimizers._descended
    monkeypatch.setattr(Optimizers, "_descended", lambda self, task, runs: [asked.append(runs), descended(self, task, runs)][1])
    few, many = (rows_of({"task": "saddle", "optimizer": "SGD"}, seeds, rates=(0.01, 0.3), tuning=3) for seeds in (1, 3))
    assert few[0] == many[0]
    assert many[0].values["rate"] == 0.3
    assert {seed for _, seed in asked[-2]}.isdisjoint({0, 1, 2})
    assert [seed for _, seed in asked[-1]] == [0, 1, 2]


@pytest.mark.parametrize("text", ["Adam at fast", "SGD(0.5)", "momentum(0.5, 3) at 1", "Adam at -1"])
def test_an_optimizer_that_cannot_be_read_is_refused(text):
    with pytest.raises(InputError):
        parsed(text)


def test_an_unknown_optimizer_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Adam"):
        parsed("Adan at 0.1")


def test_the_answer_names_who_never_arrives():
    def row(name, seed, steps):
        return Row({"task": "beale", "optimizer": name}, seed, {"steps_to_target": steps, "rate": 0.1})

    rows = Rows([row("SGD", 0, 30.0), row("SGD", 1, 40.0), row("NAG", 0, 10.0), row("NAG", 1, np.nan), row("NAG", 2, np.nan)])
    assert "SGD 35; not within 300 steps: NAG." in Optimizers().answer(rows)
    assert "left: none; not within 300 steps: NAG." in Optimizers().answer(rows.where(optimizer="NAG"))


def test_the_answer_tells_optimizers_from_seeds():
    rows = Rows(
        Row({"task": "digits", "optimizer": name}, seed, {"test_accuracy": accuracy, "rate": rate})
        for name, rate, accuracies in (("SGD", 0.3, (0.90, 0.94)), ("Adam", 0.01, (0.95, 0.97)))
        for seed, accuracy in enumerate(accuracies)
    )
    answer = Optimizers().answer(rows)
    assert "Adam 96.0% (rate 0.01), SGD 92.0% (rate 0.3); 4 points between first and last, 2.4 between the 10%" in answer
