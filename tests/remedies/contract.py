"""A rig and a proposal -> what every remedy keeps to: exact undo, a step that works, copies that stay what they are."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.remedies import Remedy
from evengrad.rig import Rig
from evengrad.trace.batch import Batch, call, scalar_loss
from evengrad.types import Proposal


def keeps_the_contract(remedy: Remedy, rig: Rig, batch: Batch, proposal: Proposal) -> None:
    """Asserts that a change of this patient survives being stored, is undone to the bit, trains, is copied, pickled and saved."""
    assert rig.optimizer is not None
    plain = Proposal(**json.loads(json.dumps(dataclasses.asdict(proposal), allow_nan=False)))
    assert proposal.remedy == remedy.name
    assert proposal.summary
    assert proposal.cause
    assert all(line[0] in "+- " for line in proposal.code.splitlines())
    assert any(line[0] in "+-" for line in proposal.code.splitlines())
    before, said = snapshot(rig), output(rig, batch)
    undo = remedy.apply(rig, plain)
    changed = output(rig, batch)
    for model in (copy.deepcopy(rig.model), pickle.loads(pickle.dumps(rig.model)), saved(rig.model)):
        assert torch.equal(output(Rig(model), batch), changed)
    undo()
    assert snapshot(rig) == before
    assert torch.equal(output(rig, batch), said)
    undo = remedy.apply(rig, plain)
    assert torch.equal(output(rig, batch), changed)
    held = {id(p) for group in rig.optimizer.param_groups for p in group["params"]}
    assert all(id(p) in held for p in rig.model.parameters() if p.requires_grad)
    state = copy.deepcopy(rig.model.state_dict())
    stepped(rig, batch)
    rig.model.load_state_dict(state)
    assert torch.equal(output(rig, batch), changed)
    undo()
    after = snapshot(rig)
    for part in ("modules", "parameters", "attributes", "hooks", "groups", "optimizer hooks"):
        assert after[part] == before[part], part
    assert set(after["state"]) == set(before["state"])


def stepped(rig: Rig, batch: Batch) -> float:
    """Takes one step of training and returns the loss."""
    assert rig.optimizer is not None
    rig.optimizer.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    loss = scalar_loss(call(rig.model, batch.inputs), batch.targets, rig.loss_fn)
    loss.backward()
    rig.optimizer.step()
    if rig.scheduler is not None:
        rig.scheduler.step()
    return float(loss.detach())


def output(rig: Rig, batch: Batch, *, training: bool = True) -> Tensor:
    """The model's output, dropout by a fixed seed; buffers are left as they were."""
    buffers = {name: b.clone() for name, b in rig.model.named_buffers()}
    with torch.no_grad():
        torch.manual_seed(2)
        value: Tensor = call(rig.model.train(training), batch.inputs)
        for name, b in rig.model.named_buffers():
            b.copy_(buffers[name])
    rig.model.train()
    return value


def snapshot(rig: Rig) -> dict[str, Any]:
    """Everything that undo must bring back; tensors as bytes, objects as identities."""
    assert rig.optimizer is not None
    modules = list(rig.model.named_modules(remove_duplicate=False))
    hooks = {
        (name, attribute): list(getattr(module, attribute))
        for name, module in modules
        for attribute in vars(module)
        if attribute.endswith("_hooks") or "_hooks_" in attribute
    }
    return {
        "state": {k: (v.dtype, v.detach().numpy().tobytes()) for k, v in rig.model.state_dict().items()},
        "modules": [(name, id(module), module.training) for name, module in modules],
        "parameters": [(name, id(p)) for name, p in rig.model.named_parameters(remove_duplicate=False)],
        "attributes": sorted(vars(rig.model)),
        "hooks": hooks,
        "groups": [[id(p) for p in g["params"]] for g in rig.optimizer.param_groups],
        "options": [{k: v for k, v in g.items() if k != "params"} for g in rig.optimizer.param_groups],
        "optimizer": {
            id(p): {k: v.numpy().tobytes() if isinstance(v, Tensor) else v for k, v in s.items()} for p, s in rig.optimizer.state.items()
        },
        "optimizer hooks": [list(rig.optimizer._optimizer_step_pre_hooks), list(rig.optimizer._optimizer_step_post_hooks)],
        "scheduler": {k: v for k, v in rig.scheduler.state_dict().items() if k != "lr_lambdas"} if rig.scheduler is not None else None,
        "loop": (rig.loss_fn, rig.batches, rig.train_step, rig.epochs, rig.validation, list(rig.after_epoch)),
    }


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded
