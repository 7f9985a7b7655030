"""RANK PORT -> one rank of two that train one model together, watched; prints what it saw as JSON."""

from __future__ import annotations

import json
import os
import sys

import torch
from torch import nn

import evengrad as eg


def main(rank: int, port: str) -> None:
    """Trains three steps on data of its own."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    data, averaged = torch.Generator().manual_seed(rank), []
    with eg.watch(model, optimizer, every=1) as monitor:
        for _ in range(3):
            optimizer.zero_grad()
            x = torch.randn(32, 6, generator=data)
            nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            averaged.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))
            optimizer.step()
    torch.distributed.barrier()
    trace = monitor.trace
    torch.distributed.destroy_process_group()
    seen = {"layers": [x.name for x in trace.layers], "averaged": averaged, "norms": trace.curves["grad_norm"].values.tolist()}
    seen |= {"steps": trace.steps.tolist(), "events": [e.message for e in trace.events]}
    seen["ranks"] = trace.planes["grad_norm_by_rank"].tolist() if "grad_norm_by_rank" in trace.planes else None
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
