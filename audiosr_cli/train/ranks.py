"""The processes of one run: a single one, or those that ``torchrun`` started."""

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

from audiosr_cli.errors import UsageError


@dataclass(frozen=True)
class Ranks:
    """One process among the ``world`` that train the same weights.

    Attributes:
        rank: Number of this process.
        world: Number of processes.
        device: Where this process trains.
        control: Group for single numbers between hosts; None uses the group of the gradients.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: distributed.ProcessGroup | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this process writes files, validates and prints."""
        return self.rank == 0

    def share(self, params: dict[str, Tensor], size: int) -> dict[str, Tensor]:
        """Return this process's ``size`` rows of the random parameters of all processes."""
        return {key: value[self.rank * size : (self.rank + 1) * size] for key, value in params.items()}

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return ``module``, with gradients averaged over the processes."""
        if self.world == 1:
            return module
        return DistributedDataParallel(module)

    def broadcast(self, value: float) -> float:
        """Return the leading process's ``value``."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(tensor, 0, group=self.control)
        return float(tensor)

    def gather(self, value: Tensor) -> Tensor:
        """Concatenate the ``value`` of all processes: (n, ...) → (world * n, ...)."""
        if self.world == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.world)]
        distributed.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Join the processes of this run, as torchrun's environment variables describe; NCCL on CUDA, gloo on CPUs.

    Raises:
        UsageError: If there are several processes, and ``device`` is one GPU for all of them.
    """
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    place = torch.device("cuda", local) if device == "cuda" else torch.device(device)
    if world == 1:
        if ":" in device:
            torch.cuda.set_device(place)
        yield Ranks(0, 1, place)
        return
    if ":" in device:
        raise UsageError(f"--device {device}: each of the {world} processes has a GPU of its own; use --device cuda")
    extra: dict[str, Any] = {}
    if place.type == "cuda":
        torch.cuda.set_device(place)
        extra["device_id"] = place
    extra["timeout"] = timedelta(hours=6)  # the others wait while the leading process decodes and validates
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", **extra)
    try:
        # NCCL messages between hosts would wait for all work queued on the GPU.
        control = distributed.new_group(backend="gloo", timeout=extra["timeout"]) if place.type == "cuda" else None
        yield Ranks(distributed.get_rank(), world, place, control)
        distributed.barrier()  # no process leaves while another still needs it
    finally:
        gc.collect()  # wrapped modules reference the group, whose threads must end before exit
        distributed.destroy_process_group()
