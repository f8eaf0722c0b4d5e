"""What a run does when memory runs out: let go of what it can, and go on with smaller batches."""

from __future__ import annotations

import copy
import gc
from typing import TYPE_CHECKING

import torch

from audiosr_cli.errors import UsageError
from audiosr_cli.train.tasks import Task

if TYPE_CHECKING:
    from audiosr_cli.train.loop import Trainer


def resized(task: Task, batch_size: int) -> Task:
    """Return the same task, with its networks, for batches of ``batch_size``. Raises UsageError below 1."""
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: must be at least 1")
    changed = copy.copy(task)  # not replace(), which would load a partner in training anew
    object.__setattr__(changed, "batch_size", batch_size)
    return changed


def free_memory(device: torch.device) -> None:
    """Hand back to ``device`` what tensors that are no longer needed held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def go_on_smaller(trainer: Trainer, batch_size: int) -> None:
    """Save the state of a run whose last step did not fit into memory, and let it go on with ``batch_size``."""
    before = trainer.task.batch_size
    trainer.optimizer.zero_grad()
    free_memory(trainer.ranks.device)
    trainer.save_or_warn()
    trainer.task = resized(trainer.task, batch_size)
    text = f"not enough memory for a batch of {before}; training goes on with {batch_size}"
    trainer.log.write({"event": "warning", "step": trainer.progress.step, "text": text})
