"""Training is the same for the same seed, touches nothing global, takes data of every kind, and says what does not fit."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import evengrad as eg
from evengrad.batches import batches_of
from evengrad.errors import ForwardError, InputError, UnknownNameError
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.training import Experiment, build, evaluate, first_batch, metric_name, train
from evengrad.types import Proposal


def net(*extra: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), *extra, nn.Linear(8, 3))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def arrays(n: int = 40) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=draw), torch.randint(3, (n,), generator=draw)


def experiment(**changes: Any) -> Experiment:
    given: dict[str, Any] = {
        "model": net,
        "data": arrays(),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": sgd,
        "epochs": 2,
        "batch_size": 16,
    }
    return Experiment(**given | changes)


def state_of(model: nn.Module) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in model.state_dict().items()}


class Seen:
    """A watcher that keeps the batches."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []

    def before(self, rig: Rig, batch: Batch) -> None:
        self.inputs.append(batch.inputs)

    def after(self, rig: Rig, batch: Batch, loss: Tensor) -> None:
        assert rig.step == len(self.inputs)


# ---------------------------------------------------------------- the same again


def test_a_seed_gives_the_same_result_to_the_bit() -> None:
    def trained(seed: int) -> tuple[dict[str, bytes], bytes, float]:
        result = train(experiment(model=lambda: net(nn.Dropout(0.3), nn.BatchNorm1d(8))), seed=seed)
        return state_of(result.model), result.losses.tobytes(), result.metric

    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = trained(3)
        torch.manual_seed(2)  # what is drawn elsewhere does not matter
        assert trained(3) == first
    assert trained(4)[0] != first[0]


def test_an_extra_layer_does_not_change_the_batches() -> None:
    plain, noisy, again = Seen(), Seen(), Seen()
    train(experiment(), seed=5, watcher=plain)
    train(experiment(model=lambda: net(nn.Linear(8, 8), nn.Dropout(0.5))), seed=5, watcher=noisy)
    train(experiment(), seed=6, watcher=again)
    assert len(plain.inputs) == len(noisy.inputs) == 6  # two epochs of 40 samples by 16
    assert all(torch.equal(a, b) for a, b in zip(plain.inputs, noisy.inputs, strict=True))
    assert not torch.equal(plain.inputs[0], again.inputs[0])
    assert not torch.equal(plain.inputs[0], plain.inputs[3])  # every epoch has an order of its own


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_every_epoch_meets_every_sample_once(kind: str) -> None:
    x, y = arrays()
    data = (x, y) if kind == "arrays" else torch.utils.data.TensorDataset(x, y)
    for epoch in range(3):
        batches = list(batches_of(data, 16, seed=0)(epoch))
        assert [b.samples for b in batches] == [16, 16, 8]
        together = torch.cat([b.inputs for b in batches])
        assert torch.equal(together.sort(0).values, x.sort(0).values)
        assert all(int(y[(x == row).all(1)]) == int(label) for b in batches for row, label in zip(b.inputs, b.targets, strict=True))


def test_arrays_and_a_dataset_of_them_give_the_same_training() -> None:
    assert train(experiment()).losses.tobytes() == train(experiment(data=torch.utils.data.TensorDataset(*arrays()))).losses.tobytes()


def test_global_generators_are_left_as_they_were() -> None:
    def states() -> tuple[bytes, object, bytes]:
        return torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[union-attr]

    given = experiment(model=lambda: net(nn.Dropout(0.5)))
    before = states()
    rig = build(given, 1)
    assert states() == before
    train(given, seed=1)
    assert states() == before
    evaluate(given, rig)
    assert states() == before


def test_a_watcher_changes_nothing() -> None:
    from evengrad.recording import Recording

    given = experiment(model=lambda: net(nn.Dropout(0.3), nn.BatchNorm1d(8)))
    plain, watched = train(given), train(given, watcher=Recording())
    assert state_of(plain.model) == state_of(watched.model)
    assert plain.losses.tobytes() == watched.losses.tobytes()
    assert plain.metric == watched.metric


# ---------------------------------------------------------------- data


@pytest.mark.parametrize(
    "data",
    [
        (arrays()[0].numpy().astype(np.float64), arrays()[1].numpy().astype(np.int32)),
        (arrays()[0].numpy()[:, ::-1][:, ::-1], arrays()[1].tolist()),
        [arrays()[0].tolist(), arrays()[1].numpy().astype(np.uint8)],
        torch.utils.data.TensorDataset(*arrays()),
        lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*arrays()), batch_size=16),
        lambda: iter([arrays(), arrays()]),
        lambda: [list(arrays())],
    ],
    ids=["float64 and int32", "lists", "list of two", "dataset", "loader", "iterator", "batch as a list"],
)
def test_takes_data_of_every_kind(data: Any) -> None:
    result = train(experiment(data=data, epochs=30))
    assert np.isfinite(result.losses).all()
    assert result.losses[-1] < result.losses[0]
    assert 0.4 < result.metric <= 1.0


def test_an_array_that_is_read_only_or_reversed_is_copied() -> None:
    x = arrays()[0].numpy().copy()
    x.setflags(write=False)
    assert train(experiment(data=(x, arrays()[1]))).losses.tobytes() == train(experiment()).losses.tobytes()
    assert np.isfinite(train(experiment(data=(arrays()[0].numpy()[::-1], arrays()[1]))).losses).all()


def test_an_iterable_dataset_comes_in_its_own_order() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            yield from zip(*arrays(), strict=True)

    seen = Seen()
    train(experiment(data=Stream(), epochs=1), watcher=seen)
    assert torch.equal(torch.cat(seen.inputs), arrays()[0])


def test_data_as_a_function_are_called_once_an_epoch() -> None:
    calls = []

    def data() -> list[tuple[Tensor, Tensor]]:
        calls.append(None)
        return [arrays()]

    given = experiment(data=data, epochs=3)
    rig = build(given)
    calls.clear()
    for epoch in range(3):
        list(rig.batches(epoch))
    assert len(calls) == 3


def test_inputs_can_be_tuples_and_mappings() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.layer(left + right)

    x, y = arrays()
    by_name = train(experiment(model=Two, data=lambda: [({"left": x, "right": x}, y)]))
    by_place = train(experiment(model=Two, data=lambda: [((x, x), y)]))
    assert by_name.losses.tobytes() == by_place.losses.tobytes()


def test_floating_targets_stay_floating() -> None:
    x, _ = arrays()
    given = experiment(model=lambda: nn.Linear(4, 1), data=(x, x[:, :1].numpy().astype(np.float64)), loss_fn=nn.MSELoss(), epochs=20)
    assert metric_name(given) == "-loss"
    result = train(given)
    assert -0.1 < result.metric < 0


# ---------------------------------------------------------------- the loop


def test_the_scheduler_is_stepped_after_each_batch() -> None:
    rates: list[float] = []

    class Rates(Seen):
        def before(self, rig: Rig, batch: Batch) -> None:
            super().before(rig, batch)
            assert rig.optimizer is not None
            rates.append(rig.optimizer.param_groups[0]["lr"])

    train(experiment(scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5)), watcher=Rates())
    assert rates == pytest.approx([0.1 * 0.5**k for k in range(6)], rel=1e-12)


def test_a_step_of_ones_own_replaces_the_standard_one() -> None:
    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        x, y = batch
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def frozen(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> float:
        return 7.0

    assert train(experiment(train_step=step)).losses.tobytes() == train(experiment()).losses.tobytes()
    stood = train(experiment(train_step=frozen))
    assert (stood.losses == 7.0).all()
    assert state_of(stood.model) == state_of(build(experiment(train_step=frozen)).model)


def test_the_model_trains_in_train_mode_and_is_judged_in_eval_mode() -> None:
    modes: list[bool] = []

    class Tells(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            modes.append(self.training)
            return super().forward(x)

    result = train(experiment(model=lambda: Tells(4, 3)))
    assert modes == [True] * 6 + [False]
    assert result.model.training


def test_stops_at_the_largest_number_of_steps_and_after_the_budget() -> None:
    assert len(train(experiment(epochs=50), max_steps=4).losses) == 4

    def slow(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> float:
        time.sleep(0.05)
        return 1.0

    result = train(experiment(train_step=slow, epochs=200), max_seconds=0.2)
    assert 1 <= len(result.losses) <= 5  # the step that exceeds the budget is the last
    assert math.isfinite(result.metric)


def test_divergence_ends_training_with_the_epoch_and_has_no_metric() -> None:
    unbounded = experiment(model=lambda: nn.Linear(4, 3), loss_fn=lambda o, t: o.square().mean(), optimizer=_huge_rate, epochs=100)
    result = train(unbounded)
    assert math.isnan(result.metric)
    assert len(result.losses) < 20
    assert not math.isfinite(result.losses[-1])


def _huge_rate(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 1e30)


# ---------------------------------------------------------------- the metric


class Constant(nn.Module):
    """Answers the same logits for every sample; has one parameter, so that it can be trained."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits, self.p = torch.tensor(logits), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1) + 0 * self.p


def judged(model: nn.Module, data: Any, **more: Any) -> float:
    given = experiment(model=lambda: model, data=data, **more)
    return evaluate(given, build(given))


def test_accuracy_counts_right_answers() -> None:
    x, y = torch.zeros(10, 4), torch.tensor([0, 1, 2, 2, 2, 2, 2, 1, 1, 1])
    assert judged(Constant(0, 0, 1), (x, y)) == 0.5
    assert judged(Constant(0, 1, 0), (x, y)) == 0.4
    assert judged(Constant(0, 1, 0), (x, y[:, None]), loss_fn=lambda o, t: F.cross_entropy(o, t[:, 0])) == 0.4
    assert judged(Constant(math.nan, 0, 0), (x, y)) != judged(Constant(math.nan, 0, 0), (x, y))


def test_accuracy_of_one_logit_counts_its_sign() -> None:
    x, y = torch.zeros(4, 4), torch.tensor([1, 1, 1, 0])
    loss = lambda o, t: F.binary_cross_entropy_with_logits(o.squeeze(1), t.float())  # noqa: E731
    assert judged(Constant(2.0), (x, y), loss_fn=loss) == 0.75
    assert judged(Constant(-2.0), (x, y), loss_fn=loss) == 0.25
    floats = (x, y.float()[:, None])
    assert judged(Constant(2.0), floats, loss_fn=nn.BCEWithLogitsLoss(), metric="accuracy") == 0.75


def test_equal_accuracies_are_equal_numbers_however_the_answers_fall_into_batches() -> None:
    y = torch.zeros(1024 + 977, dtype=torch.int64)

    def score(wrong: slice) -> float:
        labels = y.clone()
        labels[wrong] = 1
        return judged(Constant(1, 0, 0), lambda: zip(torch.zeros(2001, 4).split(1024), labels.split(1024), strict=True))

    assert score(slice(0, 7)) == score(slice(1100, 1107)) == score(slice(1020, 1027)) == 1994 / 2001


def test_auto_is_minus_the_loss_for_floating_targets_and_loss_is_the_loss() -> None:
    x = torch.zeros(10, 4)
    targets = torch.full((10, 1), 3.0)
    given = {"model": Constant(1.0), "data": (x, targets), "loss_fn": nn.MSELoss()}
    assert judged(**given) == -4.0
    assert judged(**given, metric="loss", maximize=False) == 4.0


def test_validation_data_are_what_the_metric_is_judged_on() -> None:
    x, zeros = torch.zeros(10, 4), torch.zeros(10, dtype=torch.int64)
    assert judged(Constant(1, 0, 0), (x, zeros)) == 1.0
    for validation in ((x, zeros + 1), torch.utils.data.TensorDataset(x, zeros + 1), lambda: [(x, zeros + 1)]):
        assert judged(Constant(1, 0, 0), (x, zeros), validation=validation) == 0.0


def test_a_metric_of_ones_own_gets_the_model_in_eval_mode_and_cannot_change_it() -> None:
    def modes(model: nn.Module) -> float:
        seen.append(model.training)
        model.train()
        return 0.25

    seen: list[bool] = []
    given = experiment(metric=modes)
    assert metric_name(given) == "modes"
    rig = build(given)
    rig.model[0].eval()  # type: ignore[index]
    before = [m.training for m in rig.model.modules()]
    assert evaluate(given, rig) == 0.25
    assert seen == [False]
    assert [m.training for m in rig.model.modules()] == before


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": net()}, r"Experiment's model must be a function, such as lambda: MyModel\(\); got Sequential"),
        ({"model": None}, "model must be a function.*got NoneType"),
        ({"loss_fn": "mse"}, r"loss_fn must be a function, such as torch.nn.CrossEntropyLoss\(\); got str"),
        ({"optimizer": sgd(net())}, "optimizer must be a function, such as lambda model: .*; got SGD"),
        ({"scheduler": 3}, "scheduler must be a function, such as lambda optimizer: .*; got int"),
        ({"train_step": "step"}, "train_step must be a function, such as .*; got str"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1; got 0"),
        ({"epochs": "3"}, "epochs must be a whole number of at least 1; got '3'"),
        ({"batch_size": -1}, "batch_size must be a whole number of at least 1; got -1"),
        ({"batch_size": 0.5}, "batch_size must be a whole number of at least 1; got 0.5"),
        ({"metric": "acc"}, "metric must be 'auto', 'accuracy', 'loss' or a function of the model; got 'acc'"),
        ({"metric": None}, "metric must be .* got None"),
        ({"metric": "loss"}, "'loss' is better when it is smaller, but maximize is True; give maximize=False"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused_at_once(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        experiment(**changes)


X, Y = arrays()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": lambda: 3}, r"model\(\) must return an nn.Module; got int"),
        ({"model": lambda: net().requires_grad_(False)}, "no parameter with requires_grad.*Unfreeze a layer"),
        ({"optimizer": lambda m: None}, r"optimizer\(model\) must return a torch.optim.Optimizer; got NoneType"),
        ({"data": X}, "data must be .*got Tensor"),
        ({"data": (X, Y, Y)}, "data must be .*got tuple"),
        ({"data": 3}, "data must be .*got int$"),
        ({"data": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y))}, "got DataLoader. Write lambda: loader"),
        ({"data": ({"a": X}, Y)}, "x must be numbers, an array or a tensor .*got dict. For several inputs, give a Dataset"),
        ({"data": (X, ["a"] * 40)}, "y must be numbers.*got list"),
        ({"data": (torch.tensor(3.0), Y)}, "x must be an array or a tensor with samples first; got the single number 3.0"),
        ({"data": (X[:0], Y[:0])}, r"the data are empty: expected at least one sample, got x of shape \(0, 4\)"),
        ({"data": (X, Y[:-1])}, "x has 40 samples but y has 39"),
        ({"data": list}, "the data are empty: no batch came"),
        ({"data": lambda: [(X[:0], Y[:0])]}, "the data are empty"),
        ({"data": lambda: [X]}, r"a batch must be a pair \(inputs, targets\); got a Tensor"),
        ({"data": lambda: [(X, Y, Y)]}, "a batch must be a pair .*got a tuple of 3"),
        ({"data": (X * math.nan, Y)}, "every input value is NaN or infinite in the first batch"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used: this machine has .* Use device='cpu'"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
)
def test_parts_that_do_not_fit_are_refused_when_it_is_built(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        build(experiment(**changes))


def raising(*_: Any, **__: Any) -> Any:
    raise LookupError("mine")


@pytest.mark.parametrize("part", ["model", "optimizer", "scheduler", "data", "metric", "train_step"])
def test_what_a_function_of_the_user_raises_is_shown_as_theirs(part: str) -> None:
    with pytest.raises(ForwardError, match=f"Experiment's {part} raised LookupError: mine") as caught:
        train(experiment(**{part: raising}))
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_loss_that_only_validation_data_break_is_shown_as_the_users() -> None:
    x, _ = arrays()
    given = experiment(model=lambda: nn.Linear(4, 1), data=(x, x[:, :1]), validation=(x, x[:, :3]), loss_fn=_strict)
    with pytest.raises(ForwardError, match="Experiment's loss_fn raised AssertionError: one column"):
        train(given)


def _strict(output: Tensor, targets: Tensor) -> Tensor:
    assert targets.shape[1] == 1, "one column"
    return F.mse_loss(output, targets)


@pytest.mark.parametrize(("value", "got"), [(None, "a NoneType"), (torch.zeros(3), r"a tensor of shape \(3,\)"), ("0.5", "a str")])
def test_a_step_that_returns_no_loss_is_refused(value: Any, got: str) -> None:
    with pytest.raises(InputError, match=f"train_step must return the loss, a scalar; got {got}. End it with: return loss"):
        train(experiment(train_step=lambda *_: value))


def test_accuracy_without_one_label_an_answer_is_refused() -> None:
    x, _ = arrays()
    with pytest.raises(InputError, match=r"accuracy compares one label with each answer; got outputs \(40, 3\) and targets \(40, 2\)"):
        judged(net(), (x, torch.zeros(40, 2)), loss_fn=lambda o, t: o.sum(), metric="accuracy")


def test_labels_out_of_range_are_named_with_the_number_of_outputs() -> None:
    with pytest.raises(InputError, match=r"Labels run from 3 to 5, but the model has 3 outputs: expected labels in \[0, 2\]"):
        train(experiment(data=(X, Y + 3), batch_size=40))


def test_a_repair_that_no_remedy_knows_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"no remedy is called 'batchnorm'.*Did you mean 'batch_norm'"):
        build(experiment().repaired([Proposal(remedy="batchnorm")]))


def test_repairs_add_up_and_leave_the_original_alone() -> None:
    first, second = Proposal(remedy="clip_norm", options={"max_norm": 1.0}), Proposal(remedy="lower_rate", options={"factor": 0.1})
    plain = experiment()
    both = plain.repaired([first]).repaired([second])
    assert both.repairs == (first, second)
    assert plain.repairs == ()
    optimizer = build(both).optimizer
    assert optimizer is not None
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    assert len(optimizer._optimizer_step_pre_hooks) == 1


def test_the_first_batch_is_the_one_that_training_starts_with() -> None:
    seen = Seen()
    train(experiment(), seed=3, watcher=seen)
    assert torch.equal(first_batch(build(experiment(), 3)).inputs, seen.inputs[0])


def test_public_names_are_these() -> None:
    assert (eg.Experiment, eg.train, eg.build) == (Experiment, train, build)
