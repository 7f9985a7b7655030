import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import evengrad as eg
from evengrad.errors import InputError
from evengrad.trace.adapters import adapted
from tests.integrations.networks import article, circles, convolutional, deep_sigmoid, keras

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's, with numpy 2


def tensors(samples=128):
    x, y = circles(samples)
    return torch.from_numpy(x), torch.from_numpy(y).float()[:, None]


def rows(model, inputs):
    return {x.name: x for x in eg.check(model, inputs, causes=False).trace.layers}


def test_layers_have_their_keras_names_fans_activations_and_norms():
    found = rows(article(), tensors()[0])
    kinds = [(x.kind, x.fan_in, x.fan_out, x.activation, x.norm) for x in found.values()]
    assert kinds == [
        ("linear", 2, 16, "relu", "none"),
        ("norm", 0, 0, "none", "batch_norm"),
        ("linear", 16, 12, "leaky_relu", "none"),
        ("linear", 12, 10, "selu", "none"),
        ("linear", 10, 1, "sigmoid", "none"),
    ]
    names = [layer.name for layer in article().layers if layer.weights]
    assert [n.rstrip("_0123456789") for n in found] == [n.rstrip("_0123456789") for n in names]
    third = next(x for x in found.values() if x.fan_out == 12)
    assert third.activation_options == {"negative_slope": pytest.approx(0.2)}
    assert third.weight == f"{third.name}.kernel"
    assert third.bias == f"{third.name}.bias"


def test_a_norm_behind_a_layer_is_seen_though_keras_computes_it_by_hand():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.ReLU()])
    first = next(iter(rows(model, tensors()[0]).values()))
    assert (first.activation, first.norm) == ("relu", "batch_norm")
    assert first.norm_module == model.layers[1].name


def test_kernels_of_convolutions_have_their_fans_and_units():
    model = convolutional()
    with torch.no_grad():  # all units of the first layer alike
        model.layers[0].kernel.value.copy_(model.layers[0].kernel.value[..., :1].expand(3, 3, 3, 8).clone())
    trace = eg.check(model, torch.randn(16, 12, 12, 3), causes=False).trace
    first, _, second, last = trace.layers
    assert [(x.kind, x.fan_in, x.fan_out) for x in (first, second, last)] == [("conv", 27, 72), ("conv", 72, 144), ("linear", 256, 10)]
    assert trace.column("distinct_unit_fraction")[0, [0, 2]].tolist() == [1 / 8, 1.0]


def test_layers_in_blocks_and_in_lists_of_a_subclass_are_found():
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [keras.Sequential([keras.layers.Dense(6, activation="relu", name="a")], name=f"block{i}") for i in range(2)]
            self.scale = self.add_weight(shape=(6,), initializer="ones", name="scale")
            self.out = keras.layers.Dense(1, name="out")

        def call(self, x, training=None):
            for block in self.blocks:
                x = block(x)
            return self.out(x * self.scale)

    model = Mine()
    model(torch.zeros(2, 2))
    found = rows(model, tensors()[0])
    assert list(found) == ["block0/a", "block1/a", "scale", "out"]
    assert [found[n].depth for n in ("block0/a", "block1/a", "out")] == [1, 2, 3]


def test_check_changes_nothing_not_even_moving_averages_and_seeds():
    model = article()
    state = [v.numpy() for v in model.variables]
    hooks, own = [dict(layer._forward_hooks) for layer in model.layers], set(vars(model))
    eg.check(model, *tensors(), nn.BCELoss())
    assert all(np.array_equal(before, v.numpy()) for before, v in zip(state, model.variables, strict=True))
    assert [dict(layer._forward_hooks) for layer in model.layers] == hooks
    assert set(vars(model)) == own
    assert all(v.value.grad is None for v in model.variables)


def test_dropout_and_batch_norm_follow_the_mode():
    network, x = adapted(article()), tensors()[0]
    network.eval()
    one, other = network(x), network(x)
    assert torch.equal(one, other)
    assert torch.equal(one, network.evengrad_original(x, training=False))
    before = [b.clone() for b in network.buffers()]
    network.train()
    assert not torch.equal(network(x), network(x))
    assert any(not torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))


@pytest.mark.parametrize("build", [article, convolutional])
def test_a_copy_shares_nothing_and_is_called_as_the_original(build):
    network = adapted(build())
    twin, shape = copy.deepcopy(network), network.input_shape[1:]
    x = torch.randn(4, *shape)
    network.eval(), twin.eval()
    expected = network(x)
    assert torch.equal(twin(x), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(network(x), expected)
    assert not torch.equal(twin(x), expected)
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(x), expected)


def test_a_pickled_network_answers_the_same():
    network, x = adapted(convolutional()).eval(), torch.randn(4, 12, 12, 3)
    assert torch.equal(pickle.loads(pickle.dumps(network)).eval()(x), network(x))


def test_a_state_of_another_model_is_refused():
    with pytest.raises(InputError, match="the state is of another model: missing"):
        adapted(article()).load_state_dict({})


def test_several_inputs_come_as_arguments_or_by_name():
    one, other = keras.Input((2,), name="one"), keras.Input((3,), name="other")
    model = keras.Model([one, other], keras.layers.Dense(1)(keras.layers.Concatenate()([one, other])))
    a, b = torch.randn(5, 2), torch.randn(5, 3)
    expected = model([a, b])
    assert torch.equal(adapted(model)(a, b), expected)
    assert torch.equal(adapted(model)(one=a, other=b), expected)


def test_a_module_in_the_place_of_a_layer_runs_instead_of_it():
    network, x = adapted(deep_sigmoid(2)), tensors()[0]
    name, layer = next((n, m) for n, m in network.named_children() if type(m).__name__ == "Dense")
    network._modules[name] = nn.Sequential(layer, nn.ReLU())
    assert not torch.equal(network(x), network.evengrad_original(x)) or bool((layer(x) >= 0).all())
    network._modules[name] = nn.Linear(2, 20)
    assert not torch.equal(network(x), network.evengrad_original(x))
    network._modules[name] = layer
    assert torch.equal(network(x), network.evengrad_original(x))


def test_a_model_without_weights_says_what_to_do():
    with pytest.raises(InputError, match=r"has no weights yet.*keras.Input"):
        eg.check(keras.Sequential([keras.layers.Dense(2)]), tensors()[0])


def test_another_backend_says_which_one_is_needed(monkeypatch):
    model = deep_sigmoid(1)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match=r"runs on the backend 'jax'; expected 'torch'\. Set KERAS_BACKEND=torch"):
        eg.check(model, tensors()[0])


def test_initialize_draws_kernels_by_the_activation_behind_them():
    model = convolutional()
    eg.initialize_(model, seed=0)
    first, second = model.layers[0].kernel.value, model.layers[3].kernel.value
    assert float(first.detach().std()) == pytest.approx((2 / 27) ** 0.5, rel=0.15)  # He: 216 draws
    assert float(second.detach().std()) == pytest.approx((2 / (72 + 144)) ** 0.5, rel=0.1)  # Glorot: 1152 draws


def test_orthogonal_kernels_are_orthogonal_over_their_units():
    model = convolutional()
    eg.initialize_(model, "orthogonal", seed=0)
    matrix = model.layers[3].kernel.value.detach().permute(3, 2, 0, 1).flatten(1)  # (16, 72)
    assert torch.allclose(matrix @ matrix.T / (matrix @ matrix.T)[0, 0], torch.eye(16), atol=1e-4)


@pytest.fixture(scope="module")
def repaired():
    from evengrad.integrations import keras as integration

    experiment = integration.experiment(deep_sigmoid, circles(), epochs=15)
    return experiment, eg.fix(experiment, seeds=2)


def test_a_vanishing_gradient_is_found_and_its_cause_named(repaired):
    report = repaired[1].report
    assert "VAN001" in [f.code for f in report.findings]
    assert report.causes[0] == "bad_hidden_activation"


def test_fix_repairs_it_and_says_so_in_keras_terms(repaired):
    result = repaired[1]
    assert result.verdict == "fixed"
    swap = next(p for p in result.chosen if p.remedy == "swap_activation")
    old, new = swap.code.splitlines()
    assert old == '-Dense(…, activation="sigmoid")'
    assert new.startswith('+Dense(…, activation="')
    assert 'kernel_initializer="' in new
    assert not any("nn." in p.code or "torch.optim" in p.code for p in result.report.proposals)


def test_a_repaired_experiment_trains_a_keras_model(repaired):
    result = eg.train(repaired[1].experiment, seed=5)
    assert isinstance(result.model, keras.Model)
    assert result.metric > 0.8
    assert [layer.name for layer in result.model.layers][:2] == ["dense", "dense_1"]  # whatever was built before


def test_the_same_seed_trains_the_same_model(repaired):
    one, other, third = (eg.train(repaired[0], seed=s, max_steps=5).losses for s in (0, 0, 1))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)


@pytest.mark.parametrize("remedy", ["batch_norm", "layer_norm", "rms_norm"])
def test_a_norm_goes_between_a_keras_layer_and_its_own_activation(remedy):
    x, y = tensors()
    network = adapted(deep_sigmoid(3))
    rig = eg.Rig(network, torch.optim.SGD(network.parameters(), 0.1), nn.BCELoss())
    trace = eg.check(network, x, y, nn.BCELoss(), causes=False).trace
    finding = eg.Finding(code="VAN001", symptom="vanishing_gradient", severity="error", message="", cause="missing_normalization_layer")
    member = eg.remedies.discovered()[remedy]()
    (proposal,) = member.propose(finding, trace)
    network.eval()
    before, parameters = network(x).detach(), len(list(network.parameters()))
    undo = member.apply(rig, proposal)
    hidden = list(eg.check(network, x, y, nn.BCELoss(), causes=False).trace.layers)
    assert {r.norm for r in hidden if r.activation == "sigmoid"} == {remedy, "none"}  # none at the head
    assert len(list(network.parameters())) == len(rig.optimizer.param_groups[0]["params"]) > parameters
    network.train()
    twin = copy.deepcopy(network)
    assert torch.equal(twin(x), network(x))
    loss = nn.functional.binary_cross_entropy(network(x), y)
    loss.backward()
    rig.optimizer.step()
    assert not torch.equal(twin(x), network(x))
    network.load_state_dict(twin.state_dict())
    undo()
    network.eval()
    assert torch.equal(network(x), before)
    assert len(rig.optimizer.param_groups[0]["params"]) == parameters


@pytest.mark.parametrize("remedy", ["batch_norm", "group_norm"])
def test_a_norm_behind_a_keras_convolution_norms_its_channels(remedy):
    network, x = adapted(convolutional()), 3 + torch.randn(8, 12, 12, 3)
    trace = eg.check(network, x, causes=False).trace
    finding = eg.Finding(code="VAN001", symptom="vanishing_gradient", severity="error", message="", cause="missing_normalization_layer")
    member = eg.remedies.discovered()[remedy]()
    (proposal,) = member.propose(finding, trace)
    undo = member.apply(eg.Rig(network), proposal)
    second = [m for m in network.evengrad_original.layers if type(m).__name__ == "Conv2D"][1]
    seen = []
    handle = next(second.children(), second)  # the weights' own dictionary comes first
    norm = next(m for m in second.children() if m is not handle)
    norm.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    network(x)
    channels = seen[0].movedim(1, -1) if seen[0].dim() == 4 and remedy == "group_norm" else seen[0]
    assert channels.shape[-1] == 16
    axes = (0,) if remedy == "batch_norm" else (1, 2, 3)
    assert torch.allclose(channels.mean(axes), torch.zeros(1), atol=1e-4)
    undo()
    assert not any("evengrad" in n for n, _ in network.named_modules())
