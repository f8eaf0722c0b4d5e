"""The processes of one run: alone, or as many as ``torchrun`` started."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """One process among ``world`` that train the same weights."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: distributed.ProcessGroup | None = None  # on which the leader talks; None is the group of the gradients

    @property
    def leads(self) -> bool:
        """Whether this process writes files, validates and talks."""
        return self.rank == 0

    def share(self, recipe: dict[str, Tensor], size: int) -> dict[str, Tensor]:
        """The ``size`` items for this rank of a recipe for all."""
        return {key: value[self.rank * size : (self.rank + 1) * size] for key, value in recipe.items()}

    def wrap(self, module: nn.Module) -> nn.Module:
        """``module``, its gradients averaged over the ranks."""
        if self.world == 1:
            return module
        return DistributedDataParallel(module)

    def told(self, value: float) -> float:
        """What the leader says."""
        if self.world == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(box, 0, group=self.control)
        return float(box)

    def gather(self, value: Tensor) -> Tensor:
        """Every process's ``value``, one after the other: (n, ...) → (world * n, ...)."""
        if self.world == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.world)]
        distributed.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def join(device: str) -> Iterator[Ranks]:
    """The ranks of this run, by torchrun's variables; NCCL on CUDA, gloo on CPUs."""
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    place = torch.device("cuda", local) if device == "cuda" else torch.device(device)
    if world == 1:
        yield Ranks(0, 1, place)
        return
    extra: dict[str, Any] = {}
    if place.type == "cuda":
        torch.cuda.set_device(place)
        extra["device_id"] = place
    extra["timeout"] = timedelta(hours=6)  # the others wait while the leader decodes and validates
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", **extra)
    try:
        # Words between hosts through the card would wait for all that it has to do.
        control = distributed.new_group(backend="gloo", timeout=extra["timeout"]) if place.type == "cuda" else None
        yield Ranks(distributed.get_rank(), world, place, control)
        distributed.barrier()  # nobody leaves while another still hears from it
    finally:
        gc.collect()  # wrapped modules hold on to the group, whose threads would be cut off at exit
        distributed.destroy_process_group()
