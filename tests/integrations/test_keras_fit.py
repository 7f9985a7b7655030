import numpy as np
import pytest
import torch
from torch import nn

import evengrad as eg
from evengrad.errors import InputError
from evengrad.integrations.keras_optimizers import Steps
from tests.integrations.networks import article, circles, deep_sigmoid, keras

integration = pytest.importorskip("evengrad.integrations.keras")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's, with numpy 2

CLIPS = ({}, {"clipvalue": 0.01}, {"clipnorm": 0.1}, {"global_clipnorm": 0.1})


def fitted(callbacks, clip=None, epochs=2):
    keras.utils.set_random_seed(0)
    model, (x, y) = article(clip), circles(200)
    model.fit(x, y, epochs=epochs, batch_size=50, validation_data=(x, y), verbose=0, callbacks=callbacks)
    return model


@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_watching_changes_no_bit_and_leaves_nothing_behind(clip):
    watch = integration.Watch()
    watched, plain = fitted([watch], clip), fitted([], clip)
    assert all(np.array_equal(a, b) for a, b in zip(watched.get_weights(), plain.get_weights(), strict=True))
    assert watch.monitor.detached
    assert not {"apply", "scale_loss", "_clip_gradients"} & set(vars(watched.optimizer))
    assert not watched._forward_pre_hooks
    assert not watched._forward_hooks


def test_gradients_are_seen_raw_and_as_they_are_used():
    watch = integration.Watch(every=1)
    fitted([watch], {"global_clipnorm": 0.1})
    curves = watch.monitor.trace.curves
    assert (curves["grad_norm"].values > 0.15).all()
    assert np.allclose(curves["grad_norm_used"].values, 0.1, rtol=1e-4)
    assert (curves["clipped"].values == 1).all()


def test_the_loss_is_that_of_each_batch_and_metrics_are_those_of_each_epoch():
    watch, losses = integration.Watch(), []

    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            losses.append(dict(logs))

    fitted([watch, Seen()])
    curves = watch.monitor.trace.curves
    assert len(curves["loss"].values) == 8
    assert curves["loss"].values[:4].mean() == pytest.approx(losses[0]["loss"], rel=1e-5)
    assert curves["val_loss"].values.tolist() == pytest.approx([x["val_loss"] for x in losses])
    assert curves["val_accuracy"].steps.tolist() == [3, 7]


def test_layers_are_measured_under_their_keras_names():
    watch = integration.Watch(every=1)
    model = fitted([watch])
    trace = watch.monitor.trace
    assert [x.name for x in trace.layers] == [layer.name for layer in model.layers if layer.weights]
    linear = [i for i, x in enumerate(trace.layers) if x.kind == "linear"]
    assert (trace.column("grad_norm")[:, linear] > 0).all()
    assert (trace.column("update_norm")[:, linear] > 0).all()
    assert (trace.column("grad_out_norm")[0, linear] > 0).all()


def test_a_fault_is_reported():
    keras.utils.set_random_seed(0)
    watch, model = integration.Watch(), deep_sigmoid(10)
    model.fit(*circles(), epochs=3, batch_size=32, verbose=0, callbacks=[watch])
    assert "VAN001" in [f.code for f in watch.monitor.report().findings]


def test_a_guard_ends_fit_before_the_weights_are_spoilt():
    keras.utils.set_random_seed(0)
    model, (x, y) = article(), circles(200)
    model.compile(loss="mse", optimizer="sgd")
    y = np.full(len(y), np.nan)
    before = [v.numpy() for v in model.trainable_variables]
    watch = integration.Watch(guard="stop")
    history = model.fit(x, y, epochs=5, batch_size=50, verbose=0, callbacks=[watch], shuffle=False)
    assert len(history.epoch) == 1
    assert "stop" in [e.kind for e in watch.monitor.trace.events]
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.trainable_variables, strict=True))


def test_an_uncompiled_model_says_what_to_do():
    with pytest.raises(InputError, match="no optimizer; call model"):
        Steps(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), print)


OPTIMIZERS = {
    "sgd": lambda **k: keras.optimizers.SGD(0.1, **k),
    "momentum": lambda **k: keras.optimizers.SGD(0.1, momentum=0.9, **k),
    "nesterov": lambda **k: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, **k),
    "rmsprop": lambda **k: keras.optimizers.RMSprop(0.01, **k),
    "adam": lambda **k: keras.optimizers.Adam(0.01, **k),
    "adamw": lambda **k: keras.optimizers.AdamW(0.01, weight_decay=0.1, **k),
    "adamax": lambda **k: keras.optimizers.Adamax(0.01, **k),
    "adagrad": lambda **k: keras.optimizers.Adagrad(0.1, **k),
    "adadelta": lambda **k: keras.optimizers.Adadelta(0.5, **k),
    "decay": lambda **k: keras.optimizers.SGD(0.1, weight_decay=0.5, **k),
    "clipvalue": lambda **k: keras.optimizers.SGD(0.1, clipvalue=0.2),
    "clipnorm": lambda **k: keras.optimizers.SGD(0.1, clipnorm=0.3),
    "global_clipnorm": lambda **k: keras.optimizers.SGD(0.1, global_clipnorm=0.3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_torch_takes_the_steps_that_keras_takes(name):
    torch.manual_seed(0)
    values = [torch.randn(4, 3), torch.randn(3)]
    gradients = [[torch.randn(4, 3), torch.randn(3)] for _ in range(6)]
    variables = [keras.Variable(v.clone()) for v in values]
    ours = [nn.Parameter(v.clone()) for v in values]
    theirs, optimizer = OPTIMIZERS[name](), integration.torch_optimizer(OPTIMIZERS[name](), ours)
    for step in gradients:
        theirs.apply([g.clone() for g in step], variables)
        for parameter, gradient in zip(ours, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    for variable, parameter in zip(variables, ours, strict=True):
        assert torch.allclose(variable.value, parameter, rtol=1e-4, atol=2e-5)


def test_an_optimizer_that_torch_lacks_is_named():
    with pytest.raises(InputError, match=r"no optimizer like Keras's Lion; expected one of SGD, Adam"):
        integration.torch_optimizer(keras.optimizers.Lion(), [nn.Parameter(torch.zeros(1))])


def test_a_compiled_model_becomes_an_experiment_with_its_loss_and_clipping():
    experiment = integration.experiment(lambda: article({"clipvalue": 1e-9}), circles(200), epochs=1, batch_size=50)
    rig = eg.build(experiment)
    assert isinstance(rig.optimizer, torch.optim.SGD)
    before = {name: p.detach().clone() for name, p in rig.model.named_parameters()}
    after = [v.value.detach() for v in eg.train(experiment).model.trainable_variables]
    assert max(float((p - q).abs().max()) for p, q in zip(before.values(), after, strict=True)) < 1e-7
    keras.utils.set_random_seed(0)
    model, (x, y) = article(), circles(50)
    loss = float(model.evaluate(x, y, verbose=0)[0])
    with torch.no_grad():
        answers = model(torch.from_numpy(x), training=False)
    assert float(experiment.loss_fn(answers, torch.from_numpy(y))) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "width", "activation"),
    [("binary_crossentropy", 1, "sigmoid"), ("sparse_categorical_crossentropy", 2, "softmax"), ("categorical_crossentropy", 2, "softmax")],
)
def test_accuracy_is_keras_accuracy(loss, width, activation):
    x, y = circles(200)
    y = np.eye(2, dtype="float32")[y] if loss == "categorical_crossentropy" else y

    def build():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(width, activation)])
        model.compile(loss=loss, optimizer="sgd", metrics=["accuracy"])
        return model

    result = eg.train(integration.experiment(build, (x, y), epochs=1))
    assert result.metric == pytest.approx(result.model.evaluate(x, y, verbose=0)[1], abs=1e-6)


def test_a_model_without_one_loss_is_refused():
    with pytest.raises(InputError, match="expected a model compiled with one loss; got none"):
        integration.experiment(lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), circles())
