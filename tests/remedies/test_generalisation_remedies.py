"""Dropout, early stopping and augmentation: less of what holds a network back, more of what keeps it from learning by heart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.errors import InputError
from evengrad.remedies import discovered
from evengrad.remedies.augment import Augment
from evengrad.remedies.early_stopping import Stop, validation_loss
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.training import build, first_batch, train
from evengrad.types import Proposal
from tests.remedies.contract import output
from tests.remedies.loop_patients import X, Y, blamed, diagnosis, experiment, found, keeps, net, normal, proposals, trace_of


def wide() -> nn.Module:
    return net(width=128, depth=2)


NOISY = torch.where(torch.rand(512, generator=torch.Generator().manual_seed(1)) < 0.25, 1 - Y, Y)  # what can only be learnt by heart
BY_HEART = experiment(
    model=wide,
    data=(X[:96], NOISY[:96]),
    validation=(X[96:], NOISY[96:]),
    optimizer=lambda m: torch.optim.Adam(m.parameters(), 3e-3),
    epochs=60,
    metric="loss",
    maximize=False,
)


@pytest.fixture(scope="module")
def overfit() -> Any:
    report = diagnosis(BY_HEART)
    return next(f for f in report.findings if f.symptom == "overfitting"), report.trace


# ---------------------------------------------------------------- early_stopping


def test_early_stopping_ends_with_the_best_weights_and_takes_the_finding_away(overfit: Any) -> None:
    (made,) = proposals("early_stopping", *overfit)
    assert made.options == {"patience": 12}
    before, after = train(BY_HEART), train(BY_HEART.repaired([made]))
    assert len(after.losses) < len(before.losses) / 2
    assert after.metric < 0.6 * before.metric
    assert "GEN001" not in {f.code for f in diagnosis(BY_HEART.repaired([made])).findings}
    keeps(BY_HEART, made)


def trained(losses: list[float], patience: int, epochs: int) -> tuple[Stop, list[float], bool]:
    """Runs the epochs of a model of one weight, which is the number of the epoch, with these validation losses."""
    model = nn.Linear(1, 1, bias=False)
    now = iter(losses)
    batch = Batch(torch.ones(1, 1), torch.ones(1, 1))
    rig = Rig(model, None, lambda _o, _t: torch.tensor(next(now)), epochs=epochs, validation=lambda _epoch: iter((batch,)))
    stop, weights, ended = Stop(patience), [], False
    for epoch in range(epochs):
        nn.init.constant_(model.weight, float(epoch))
        ended = stop(rig)
        weights.append(float(model.weight.detach()))
        if ended:
            break
    return stop, weights, ended


def test_it_waits_for_its_patience_and_puts_the_best_weights_back() -> None:
    _, weights, ended = trained([3.0, 1.0, 2.0, 2.0, 2.0, 0.5], patience=3, epochs=6)
    assert ended
    assert weights == [0.0, 1.0, 2.0, 3.0, 1.0]


def test_the_best_weights_are_back_when_the_epochs_are_used_up() -> None:
    _, weights, ended = trained([3.0, 1.0, 2.0], patience=5, epochs=3)
    assert not ended
    assert weights == [0.0, 1.0, 1.0]


def test_a_validation_loss_that_is_no_number_is_not_the_best() -> None:
    stop, _, _ = trained([3.0, float("nan"), 2.0], patience=5, epochs=3)
    assert stop.best_epoch == 3


def test_looking_at_the_validation_data_changes_nothing() -> None:
    rig = build(
        experiment(model=lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)), validation=(X, Y))
    )
    rig.model.train()
    state = {k: v.clone() for k, v in rig.model.state_dict().items()}
    numbers = torch.get_rng_state()
    expected = float(F.cross_entropy(rig.model.eval()(X), Y).detach())
    rig.model.train()
    assert validation_loss(rig) == pytest.approx(expected, rel=1e-5)
    assert all(torch.equal(v, rig.model.state_dict()[k]) for k, v in state.items())
    assert all(module.training for module in rig.model.modules())
    assert torch.equal(torch.get_rng_state(), numbers)


def test_early_stopping_without_validation_is_not_proposed_and_says_what_it_needs() -> None:
    assert proposals("early_stopping", blamed(None, "overfitting"), trace_of(experiment())) == []
    with pytest.raises(InputError, match="validation="):
        discovered()["early_stopping"]().apply(build(experiment()), Proposal(remedy="early_stopping", options={"patience": 3}))


# ---------------------------------------------------------------- dropout


def dropped_out(p: float = 0.95) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(p), nn.Linear(32, 32), nn.ReLU(), nn.Dropout(p), nn.Linear(32, 2))


def test_less_dropout_takes_the_finding_away_and_training_works() -> None:
    given = experiment(model=dropped_out)
    report = diagnosis(given, ("OPT014", "GEN003"))
    made = proposals("less_dropout", found(report, "over_regularized"), report.trace)
    assert [(p.options["p"], p.options["dropouts"]) for p in made] == [(0.1, ["2", "5"]), (0.0, ["2", "5"])]
    for proposal in made:
        assert not diagnosis(given.repaired([proposal]), ("OPT014", "GEN003")).findings
        assert train(given.repaired([proposal])).losses[-1] < 0.3 < train(given).losses[-1]
        keeps(given, proposal)


def test_light_dropout_is_left_alone_and_another_model_is_refused() -> None:
    assert proposals("less_dropout", blamed("over_regularized"), trace_of(experiment(model=lambda: dropped_out(0.1)))) == []
    for name in ("7", "0"):
        with pytest.raises(InputError, match="another model"):
            discovered()["less_dropout"]().apply(
                Rig(dropped_out()), Proposal(remedy="less_dropout", options={"p": 0.1, "dropouts": [name]})
            )


def test_dropout_is_added_in_front_of_all_linear_layers_but_the_first(overfit: Any) -> None:
    made = proposals("add_dropout", *overfit)
    assert [p.where for p in made] == [("2", "4"), ("2", "4")]
    assert train(BY_HEART.repaired(made[1:])).metric < 0.8 * train(BY_HEART).metric
    for proposal in made:
        keeps(BY_HEART, proposal)


def test_added_dropout_is_the_module_s_own_and_off_in_evaluation() -> None:
    torch.manual_seed(0)
    model = net(depth=2)
    theirs = nn.Sequential(*model[:2], nn.Dropout(0.4), *model[2:4], nn.Dropout(0.4), model[4])
    rig, batch = Rig(model), Batch(X[:16], Y[:16])
    plain = output(rig, batch, training=False)
    expected = output(Rig(theirs), batch)
    discovered()["add_dropout"]().apply(rig, Proposal(remedy="add_dropout", options={"p": 0.4, "alpha": False}, where=("2", "4")))
    assert torch.equal(output(rig, batch), expected)
    assert torch.equal(output(rig, batch, training=False), plain)


def test_selu_gets_alpha_dropout_and_a_network_with_dropout_no_more() -> None:
    trace = trace_of(experiment(model=lambda: nn.Sequential(nn.Linear(6, 8), nn.SELU(), nn.Linear(8, 2))))
    assert [p.options["alpha"] for p in proposals("add_dropout", blamed(None, "overfitting"), trace)] == [True, True]
    assert proposals("add_dropout", blamed(None, "overfitting"), trace_of(experiment(model=lambda: dropped_out(0.1)))) == []


# ---------------------------------------------------------------- augment


def test_noise_keeps_a_network_from_learning_by_heart(overfit: Any) -> None:
    (made,) = proposals("augment", *overfit)
    assert made.options == {"noise": pytest.approx(0.3, abs=0.02)}
    assert train(BY_HEART.repaired([made])).metric < 0.9 * train(BY_HEART).metric
    keeps(BY_HEART, made)


def test_every_epoch_draws_anew_and_every_seed_draws_the_same_again() -> None:
    change = Proposal(remedy="augment", options={"noise": 0.5})
    rigs = [build(experiment(repairs=(change,)), seed) for seed in (3, 3, 4)]
    numbers = torch.get_rng_state()
    first, again, other = (torch.cat([b.inputs for b in rig.batches(1)]) for rig in rigs)
    assert torch.equal(torch.get_rng_state(), numbers)
    plain = [torch.cat([b.inputs for b in build(experiment(), 3).batches(epoch)]) for epoch in (1, 2)]
    noise, later = first - plain[0], torch.cat([b.inputs for b in rigs[0].batches(2)]) - plain[1]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.05)  # of 3,072 draws
    assert float(torch.corrcoef(torch.stack((noise.flatten(), later.flatten())))[0, 1]) == pytest.approx(0.0, abs=0.08)


def test_square_images_can_be_mirrored_and_each_is_whole() -> None:
    images = normal(64, 1, 8, 8)
    given = experiment(model=lambda: nn.Sequential(nn.Flatten(), net(64)), data=(images, Y[:64]))
    made = proposals("augment", blamed(None, "overfitting"), trace_of(given))
    assert [list(p.options) for p in made] == [["noise"], ["mirror"]]
    seen = torch.cat([b.inputs for b in build(given.repaired(made[1:])).batches(0)])
    plain = torch.cat([b.inputs for b in build(given).batches(0)])
    mirrored = (seen == plain.flip(-1)).flatten(1).all(1)
    assert bool((mirrored | (seen == plain).flatten(1).all(1)).all())
    assert 16 < int(mirrored.sum()) < 48


def test_a_function_of_ones_own_can_take_their_place() -> None:
    def transform(x: Tensor, generator: torch.Generator) -> Tensor:
        return x * 0 + torch.rand(1, generator=generator)

    rig = build(experiment())
    undo = Augment(transform=transform).apply(rig, Proposal(remedy="augment"))
    assert len(first_batch(rig).inputs.unique()) == 1
    undo()
    assert torch.equal(first_batch(rig).inputs, first_batch(build(experiment())).inputs)
