"""What each method of learning from few labels trains, on what, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evengrad.errors import UnknownNameError
from evengrad.lab import few
from evengrad.lab.data.split import split
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.few import METHODS, FewLabels
from evengrad.lab.transfer import pseudo_labels

SEEDS = (0, 3)


def labels(**options: Any) -> FewLabels:
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(6), 20)
    x = random.normal(size=(120, 16)) + 2 * np.eye(16)[y]
    data = split("six", tuple("abcdef"), (x, y), (x[::2], y[::2]))
    defaults: dict[str, Any] = {"widths": (8, 6), "steps": 12, "pretraining": 2, "batch_size": 8, "optimizer": SGD(lr=0.05)}
    return FewLabels(data=data, seeds=SEEDS, **(defaults | options))


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, Any]]:
    """Every call of fit: weights before it, samples and plan; what the runs would say of their samples is asked before they learn."""
    calls: list[tuple[Any, Any, Any]] = []
    real: Callable[..., Any] = few.fit

    def spy(runs: Any, samples: Any, plan: Any, **options: Any) -> Any:
        said = pseudo_labels(runs, samples.x[samples.index])
        calls.append((said, samples, plan))
        return real(runs, samples, plan, **options)

    monkeypatch.setattr(few, "fit", spy)
    return calls


def test_each_seed_has_new_classes_of_its_own_and_none_that_were_known() -> None:
    task = labels()
    (x, y), (x_known, y_known) = task._new, task._half(*task.data.train, new=False)
    assert x.shape == x_known.shape == (2, 60, 16)
    assert set(y.flatten().tolist()) == set(y_known.flatten().tolist()) == {0, 1, 2}
    for k in range(2):
        assert not {tuple(v) for v in x[k].tolist()} & {tuple(v) for v in x_known[k].tolist()}
    assert not torch.equal(x[0], x[1])


def test_labels_come_from_every_class() -> None:
    task = labels()
    assert all(set(y[places].tolist()) == {0, 1, 2} for y, places in zip(task._new[1], task._drawn(3), strict=True))


def test_moving_images_by_nothing_is_training_from_scratch() -> None:
    task = labels(shift=0, noise=0.0)
    assert task.ends("augmented", 9) == task.ends("scratch", 9)
    assert labels(shift=1, noise=0.1).ends("augmented", 9) != task.ends("scratch", 9)


def test_what_was_trained_on_is_judged_by_the_images_as_they_were() -> None:
    still = labels(optimizer=SGD(lr=0.0))
    assert still.ends("augmented", 9) == still.ends("scratch", 9)


def test_images_are_moved_anew_each_epoch_and_always_from_where_they_were(fitted: list[tuple[Any, Any, Any]]) -> None:
    task = labels()
    x, y = (few.taken(t, task._drawn(6)) for t in task._new)
    samples = few.apart(x.clone(), y)
    probe = task._jitter(samples, x)
    seen = []
    for epoch in (0, 1, 0):
        probe(None, epoch, 0)  # type: ignore[arg-type]
        seen.append(samples.x.clone())
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0][:6], seen[0][6:])


@pytest.mark.parametrize(
    ("method", "frozen", "rates"),
    [
        ("frozen", ("0.weight", "0.bias", "2.weight", "2.bias"), {}),
        ("first layer frozen", ("0.weight", "0.bias"), {}),
        ("fine-tuned", (), {}),
        ("discriminative", (), {"0.weight": 0.25, "2.weight": 0.5, "4.weight": 1.0}),
    ],
)
def test_a_pretrained_network_learns_where_the_method_says(
    fitted: list[tuple[Any, Any, Any]], method: str, frozen: tuple[str, ...], rates: dict[str, float]
) -> None:
    task = labels(ratio=2.0)
    task.ends(method, 9)
    task.ends(method, 9)
    (_, known, before), (_, own, plan), _ = fitted  # pre-trained once
    assert (known.count, before.epochs) == (60, 2)
    assert (own.count, plan.frozen) == (9, frozen)
    assert {name: rate for name, rate in plan.rates if name.endswith("weight")} == rates
    start, trained = task._start(method)[0], task._trained[0]
    assert torch.equal(start[0].weight, trained[0].weight)  # type: ignore[index]
    assert not torch.equal(start[4].weight, trained[4].weight)  # type: ignore[index]  # a new head


def test_pseudo_labels_are_the_networks_own_and_half_of_what_it_trains_on(fitted: list[tuple[Any, Any, Any]]) -> None:
    task = labels(rounds=2)
    task.ends("pseudo-labelled", 9)
    first, *rounds = fitted
    assert first[2].epochs * 2 == 6  # two batches an epoch, half of the 12 steps
    assert len(rounds) == 2
    drawn = task._drawn(9)
    for said, samples, plan in rounds:
        y, half = samples.y[samples.index], samples.count // 2
        assert plan.epochs * -(-samples.count // 8) == 3
        assert torch.equal(y[:, half:], said[:, half:])
        assert torch.equal(y[:, :9], few.taken(task._new[1], drawn))
        labelled = few.taken(task._new[0], drawn)
        assert not any((a == b).all() for k in range(2) for a in samples.x[samples.index[k, half:]] for b in labelled[k])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_for_every_seed(method: str) -> None:
    ends = labels().ends(method, 6)
    assert [set(end) for end in ends] == [{"train_accuracy", "train_loss", "test_accuracy", "test_loss"}] * 2


def test_another_method_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"'finetuned'.*fine-tuned"):
        labels().ends("finetuned", 6)
