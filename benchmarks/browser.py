"""A real Chromium, and a real training to look at in it: for the benchmark of the page and for its tests."""

from __future__ import annotations

from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
TRAINING = """
import pathlib, sys, time, torch
from torch import nn
import evengrad as eg
store, enough, hidden = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
model = nn.Sequential(*[layer for _ in range(hidden) for layer in (nn.Linear(16, 16), nn.Tanh())], nn.Linear(16, 2))
optimizer, loss_fn = torch.optim.SGD(model.parameters(), 0.05), nn.CrossEntropyLoss()
x = torch.randn(64, 16); y = (x[:, 0] > 0).long()
with eg.watch(model, optimizer, name="live", store=store) as monitor:
    step = 0
    while not enough.exists():
        optimizer.zero_grad(); loss = loss_fn(model(x), y); loss.backward(); optimizer.step(); monitor.observe(loss=loss)
        step += 1
        print(step, time.time(), flush=True)
        time.sleep(0.02)
"""  # told where to keep the run, which file ends it and how many hidden layers it has; prints each step and its time
