"""Rules for sequences on networks that are really trained: what is long ago, gates that forget, attention that has collapsed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad import rules, synthetic
from evengrad.examine import diagnose_run
from evengrad.judge import chosen_rules, judge
from evengrad.lab.models import Recurrent, Transformer
from evengrad.signals.through_time import PLANE, along_time, worst_gained, worst_lost
from evengrad.trace.through_time import forget_bias
from evengrad.types import Facts, Finding, Trace

CODES = ("ARC005", "ARC006", "ARC007", "ARC008", "EXP003")


def first_token(steps: int) -> tuple[Tensor, Tensor]:
    """Sequences of noise whose class is told at the first step."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(256, steps, 5, generator=draw), torch.randint(0, 4, (256,), generator=draw)
    x[:, 0] = 0.0
    x[torch.arange(256), 0, y] = 3.0
    return x, y


def experiment(build: Callable[[], nn.Module], steps: int, *, lr: float = 5e-3, epochs: int = 12) -> eg.Experiment:
    return eg.Experiment(
        build, first_token(steps), nn.CrossEntropyLoss(), lambda m: torch.optim.Adam(m.parameters(), lr), epochs=epochs, batch_size=32
    )


def findings(built: eg.Experiment) -> tuple[tuple[Finding, ...], Trace]:
    report, _ = diagnose_run(built, chosen_rules(select=CODES), causes=False)
    assert report.trace is not None
    return report.findings, report.trace


def recurrent(cell: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: Recurrent(inputs=5, outputs=4, cell=cell, hidden=24, **options).build(1)  # type: ignore[arg-type]


# ---------------------------------------------------------------- networks that are trained


def test_plain_network_that_must_remember_sixty_steps_is_told_why_it_does_not() -> None:
    found, _ = findings(experiment(recurrent("rnn"), 60, epochs=6))
    (finding,) = found
    assert (finding.code, finding.symptom, finding.cause) == ("ARC005", "vanishing_gradient", "long_memory")
    assert finding.severity == "error"
    assert finding.where == ("cells.l0",)


def test_the_same_network_over_six_steps_learns_and_is_left_alone() -> None:
    assert findings(experiment(recurrent("rnn"), 6))[0] == ()


def test_lstm_that_learns_is_left_alone_though_its_gradient_vanished_at_first() -> None:
    found, trace = findings(experiment(recurrent("lstm", forget_bias=3.0), 60, lr=1e-2, epochs=20))
    assert found == ()
    assert PLANE in trace.planes


def test_hidden_weights_that_amplify_explode_through_time() -> None:
    built = recurrent("rnn", activation="relu", initialiser="orthogonal", init_scale=2.0)
    found, trace = findings(experiment(built, 40, lr=1e-4, epochs=2))
    (finding,) = [f for f in found if f.code == "EXP003"]
    assert (finding.symptom, finding.where) == ("exploding_gradient", ("cells.l0",))
    assert trace.planes[PLANE][0, 0, 0] > 100 * trace.planes[PLANE][0, 0, -1]


def test_gates_that_are_shut_are_named_with_their_bias() -> None:
    found, _ = findings(experiment(recurrent("lstm", forget_bias=-5.0), 40, epochs=4))
    gate = next(f for f in found if f.code == "ARC008")
    assert (gate.severity, gate.cause, gate.where) == ("warning", "long_memory", ("cells.l0",))
    assert "-5" in gate.message


def test_collapsed_attention_is_seen_at_its_queries() -> None:
    def build() -> nn.Module:
        model = Transformer(inputs=5, outputs=4, length=8, depth=2, width=16).build(0)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith(("query.weight", "key.weight")):
                    p.mul_(20)
        return model

    found, _ = findings(experiment(build, 8, epochs=4))
    finding = next(f for f in found if f.code == "ARC006")
    assert (finding.symptom, finding.cause) == ("saturated_activation", "attention_logits")
    assert set(finding.where) == {"2.branch.1.query", "4.branch.1.query"}
    healthy = experiment(lambda: Transformer(inputs=5, outputs=4, length=8, depth=2, width=16).build(0), 8, epochs=4)
    assert "ARC006" not in {f.code for f in findings(healthy)[0]}


# ---------------------------------------------------------------- along time


def plane(profile: np.ndarray, *, loss: np.ndarray | None = None) -> Trace:
    trace = synthetic.chain(1, layer={"kind": "rnn"})
    return synthetic.run(trace, {PLANE: profile.reshape(1, 1, 32)}, **({} if loss is None else {"loss": loss}))


def test_decades_are_those_of_the_profile() -> None:
    for decades in (-20.0, -3.0, 0.0, 3.0):
        (one,) = along_time(plane(10.0 ** np.linspace(decades, 0, 32)), 0)
        assert one.lost == pytest.approx(max(0.0, -decades), abs=1e-5)
        assert one.gained == pytest.approx(max(0.0, decades), abs=1e-5)
        assert one.steps == (32 if decades else 1)


def test_what_has_become_zero_counts_to_the_end_of_single_precision() -> None:
    worst = worst_lost(plane(np.where(np.arange(32) < 10, 0.0, 1.0)), 0)
    assert worst is not None
    assert (worst.lost, worst.vanished) == (45.0, True)
    assert worst_lost(plane(np.zeros(32)), 0) is None  # nothing arrives anywhere: another rule's


def test_padding_is_no_explosion() -> None:
    """Sequences that end early leave the last steps without gradient, at an edge or step by step."""
    for padded in (np.where(np.arange(32) < 12, 1.0, 0.0), np.where(np.arange(32) < 12, 1.0, 1e-4)):
        worst = worst_gained(plane(padded), 0)
        assert worst is not None
        assert worst.gained == 0.0


def test_only_a_training_that_learns_nothing_is_an_error() -> None:
    rule, profile = rules.GradientThroughTime(), 10.0 ** np.linspace(-9, 0, 32)
    for share, codes in ((0.05, ["error"]), (0.4, ["error"]), (0.6, [])):
        loss = np.linspace(1.8, 1.8 * (1 - share), 400)
        loss[-40:] = 1.8 * (1 - share)
        assert [f.severity for f in rule.check(plane(profile, loss=loss))] == codes
    assert list(rule.check(plane(profile))) == []  # before training


def test_cause_stays_open_where_steps_were_too_large_to_tell() -> None:
    rule, stuck = rules.GradientThroughTime(), np.full(100, 1.8)
    trace = plane(10.0 ** np.linspace(-9, 0, 32), loss=stuck)
    for update, cause in ((1e-3, "long_memory"), (0.5, None), (1e-7, None)):
        moved = replace(trace, columns={"update_norm": np.full((1, 1), update, np.float32), "weight_norm": np.ones((1, 1), np.float32)})
        (finding,) = rule.check(moved)
        assert finding.cause == cause


# ---------------------------------------------------------------- warm-up and gates


@pytest.mark.parametrize(("optimizer", "told"), [("AdamW", True), ("SGD", False), ("RAdam", False)])
def test_warm_up_matters_to_optimizers_whose_first_steps_have_full_size(optimizer: str, told: bool) -> None:
    facts = Facts(modules={"post_norms": list("abcdefgh")}, optimizer={"name": optimizer})
    trace = synthetic.run(synthetic.chain(2, facts=facts), lr=np.full(100, 2e-3), loss=np.full(100, 2.3))
    assert bool(judge(trace, [rules.PostNormWarmup()]).findings) == told


def test_forget_bias_of_another_model_says_nothing() -> None:
    """Names are looked up among the rows of the trace."""
    trace = synthetic.chain(1, layer={"kind": "lstm"}, facts=Facts(modules={"forget_bias": {"elsewhere": -9.0}}))
    assert judge(trace, [rules.ForgetGate()]).findings == ()
    assert forget_bias(nn.LSTM(2, 3)).keys() == {"l0"}
