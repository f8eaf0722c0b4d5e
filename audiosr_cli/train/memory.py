"""Running out of memory during training: release what can be released, and continue with smaller batches."""

from __future__ import annotations

import copy
import gc
from typing import TYPE_CHECKING

import torch

from audiosr_cli.errors import UsageError
from audiosr_cli.train.tasks import TrainingTask

if TYPE_CHECKING:
    from audiosr_cli.train.loop import Trainer


def with_batch_size(task: TrainingTask, batch_size: int) -> TrainingTask:
    """Return the same task, sharing its networks, with another batch size. Raises UsageError below 1."""
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: must be at least 1")
    changed = copy.copy(task)  # dataclasses.replace() would load a separator in training again
    object.__setattr__(changed, "batch_size", batch_size)
    return changed


def free_memory(device: torch.device) -> None:
    """Return the memory of unused tensors to ``device``."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reduce_batch_size(trainer: Trainer, batch_size: int) -> None:
    """Save the state of a run whose last step did not fit into memory, and continue it with ``batch_size``."""
    before = trainer.task.batch_size
    trainer.optimizer.zero_grad()
    free_memory(trainer.ranks.device)
    trainer.save_or_warn()
    trainer.task = with_batch_size(trainer.task, batch_size)
    text = f"not enough memory for a batch of {before}; training continues with {batch_size}"
    trainer.log.warn(trainer.progress.step, text)
