import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from evengrad.integrations.transformers import Watch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of a GPU that is not used, and of the libraries' own


def sequences(count=32):
    ids = [torch.randint(0, 50, (12,), generator=torch.Generator().manual_seed(i)) for i in range(count)]
    return [{"input_ids": x, "labels": x} for x in ids]


def trained(callbacks, folder, spoilt=False, **options):
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_positions=12, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model = transformers.GPT2LMHeadModel(config)
    if spoilt:
        model.transformer.wte.weight.register_hook(lambda gradient: gradient * float("nan"))
    usual = {"num_train_epochs": 2, "eval_strategy": "epoch", "max_grad_norm": 0.1, "learning_rate": 1e-3} | options
    fixed = {"report_to": [], "use_cpu": True, "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
    arguments = transformers.TrainingArguments(output_dir=str(folder), per_device_train_batch_size=8, **fixed, **usual)
    trainer = transformers.Trainer(model, arguments, train_dataset=sequences(), eval_dataset=sequences(8), callbacks=callbacks)
    trainer.train()
    return model, trainer


@pytest.fixture(scope="module", params=[1, 2])
def runs(request, tmp_path_factory):
    watch = Watch(every=1)
    shares = {"gradient_accumulation_steps": request.param}
    model, trainer = trained([watch], tmp_path_factory.mktemp("watched"), **shares)
    plain, _ = trained([], tmp_path_factory.mktemp("plain"), **shares)
    return watch.monitor, model, trainer, plain


def test_watching_changes_no_bit_and_leaves_nothing_behind(runs):
    monitor, model, _, plain = runs
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert monitor.detached
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_gradients_are_seen_before_clipping_and_as_they_are_used(runs):
    monitor, _, trainer, _ = runs
    logged = [x["grad_norm"] for x in trainer.state.log_history if "grad_norm" in x]
    curves = monitor.trace.curves
    assert curves["grad_norm"].values.tolist() == pytest.approx(logged, rel=1e-4)
    assert np.allclose(curves["grad_norm_used"].values, 0.1, rtol=1e-3)


def test_the_loss_of_each_step_is_what_the_trainer_logs(runs):
    monitor, _, trainer, _ = runs
    logged = [x["loss"] for x in trainer.state.log_history if "loss" in x]
    assert monitor.trace.curves["loss"].values.tolist() == pytest.approx(logged, rel=1e-3)


def test_an_evaluation_is_seen_as_validation(runs):
    monitor, _, trainer, _ = runs
    logged = [x["eval_loss"] for x in trainer.state.log_history if "eval_loss" in x]
    assert monitor.trace.curves["val_loss"].values.tolist() == pytest.approx(logged, rel=1e-5)


def test_transposed_kernels_and_tied_weights_are_rows(runs):
    rows = {x.name: x for x in runs[0].trace.layers}
    packed = rows["transformer.h.0.attn.c_attn"]
    assert (packed.fan_in, packed.fan_out) == (16, 48)
    assert rows["lm_head"].weight == "transformer.wte.weight"


def test_a_guard_ends_training_before_the_weights_are_spoilt(tmp_path):
    watch = Watch(guard="stop")
    model, trainer = trained([watch], tmp_path, spoilt=True, eval_strategy="no")
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert "stop" in [e.kind for e in watch.monitor.trace.events]
    assert trainer.state.global_step == 1
