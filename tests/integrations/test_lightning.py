import numpy as np
import pytest
import torch
from torch import nn

pl = pytest.importorskip("pytorch_lightning")
from evengrad.integrations.lightning import Watch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of loaders without workers, of a GPU that is not used


class Classifier(pl.LightningModule):
    def __init__(self, depth=2, scale=1.0):
        super().__init__()
        hidden = [m for _ in range(depth) for m in (nn.Linear(16, 16), nn.Sigmoid() if depth > 4 else nn.ReLU())]
        self.net = nn.Sequential(nn.Linear(8, 16), *hidden, nn.Linear(16, 2))
        self.scale = scale

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        self.log("step", float(index))
        return self.scale * nn.functional.cross_entropy(self.answers(batch[0]), batch[1])

    def answers(self, x):
        return self.net(x)

    def validation_step(self, batch, index):
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class CallsItself(Classifier):
    def answers(self, x):
        return self(x)


class ByHand(Classifier):
    automatic_optimization = False

    def training_step(self, batch, index):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, index)
        self.manual_backward(loss)
        optimizer.step()
        return loss


def loader(samples=128):
    x = torch.randn(samples, 8, generator=torch.Generator().manual_seed(0))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long()), 32)


def fitted(callbacks, kind=Classifier, epochs=2, **options):
    torch.manual_seed(0)
    module = kind()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=callbacks, **quiet, **options)
    trainer.fit(module, loader(), loader())
    return module


@pytest.mark.parametrize("kind", [Classifier, CallsItself, ByHand])
def test_watching_changes_no_bit_and_leaves_nothing_behind(kind):
    watch = Watch()
    watched, plain = fitted([watch], kind), fitted([], kind)
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), plain.parameters(), strict=True))
    assert watch.monitor.detached
    assert not {"training_step", "forward", "log", "log_dict"} & set(vars(watched))
    assert not watched._forward_pre_hooks


@pytest.mark.parametrize("kind", [Classifier, CallsItself, ByHand])
def test_layers_are_seen_whatever_the_training_step_calls(kind):
    watch = Watch(every=1)
    fitted([watch], kind)
    trace = watch.monitor.trace
    assert [x.name for x in trace.layers] == ["net.0", "net.1", "net.3", "net.5"]
    assert [x.activation for x in trace.layers][1:3] == ["relu", "relu"]
    for column in ("grad_norm", "update_norm", "out_spread", "grad_out_norm"):
        assert (trace.column(column)[0] > 0).all(), column
    assert trace.curves["loss"].values[0] == pytest.approx(np.log(2), abs=0.1)


def test_gradients_are_seen_before_clipping_and_as_they_are_used():
    watch = Watch(every=1)
    fitted([watch], gradient_clip_val=0.05)
    curves = watch.monitor.trace.curves
    assert (curves["grad_norm"].values > 0.06).all()
    assert np.allclose(curves["grad_norm_used"].values, 0.05, rtol=1e-3)
    assert (curves["clipped"].values == 1).all()


def test_an_accumulated_step_is_one_step_with_the_mean_loss_of_its_batches():
    once, twice = Watch(), Watch()
    fitted([once], accumulate_grad_batches=1)
    fitted([twice], accumulate_grad_batches=2)
    one, two = once.monitor.trace.curves, twice.monitor.trace.curves
    assert len(one["loss"].values) == 8
    assert len(two["loss"].values) == 4
    assert two["loss"].values[0] == pytest.approx(one["loss"].values[0], abs=0.1)


def test_validation_is_seen_at_its_step():
    watch = Watch()
    fitted([watch])
    assert watch.monitor.trace.curves["val_loss"].steps.tolist() == [3, 7]


def test_a_fault_is_reported():
    watch = Watch()
    fitted([watch], lambda: Classifier(depth=12))
    assert "VAN001" in [f.code for f in watch.monitor.report().findings]


def test_a_guard_ends_fit_before_the_weights_are_spoilt():
    watch = Watch(guard="stop")
    module = fitted([watch], lambda: Classifier(scale=float("nan")), epochs=3)
    torch.manual_seed(0)
    untrained = Classifier()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), untrained.parameters(), strict=True))
    assert {"stop", "bad_operation"} <= {e.kind for e in watch.monitor.trace.events}
    assert module.trainer.global_step == 1


def test_the_watch_ends_with_a_fit_that_raises():
    class Breaks(Classifier):
        def training_step(self, batch, index):
            if index == 2:
                raise RuntimeError("no more")
            return super().training_step(batch, index)

    watch = Watch()
    with pytest.raises(RuntimeError, match="no more"):
        fitted([watch], Breaks)
    assert watch.monitor.detached
    assert len(watch.monitor.trace.curves["loss"].values) == 2
