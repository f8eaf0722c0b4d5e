"""A model on a device, as the engine calls it."""

from __future__ import annotations

import torch
from torch import Tensor

from audiosr_cli.models.base import Model
from audiosr_cli.runtime.device import computes_bf16, float32_products


class ModelRunner:
    """A model as the engine calls it. Where CUDA has too little memory: half the windows at once, at last the CPU.

    ``told`` says what had to be done, and the model stays where that brought it. With ``bf16`` it computes in that,
    unless it had to go where that is slow.
    """

    def __init__(self, model: Model, most: int, bf16: bool = False) -> None:
        self.model, self.max_batch, self.bf16, self.warnings = model, most, bf16, list[str]()

    def __call__(self, *x: Tensor) -> Tensor:
        """As the model, on its device, for tensors on the CPU."""
        try:
            with torch.inference_mode():
                starts = range(0, len(x[0]), self.max_batch)
                return torch.cat([self._call(*(part[i : i + self.max_batch] for part in x)) for i in starts])
        except torch.cuda.OutOfMemoryError:
            self._retreat(len(x[0]))
        return self(*x)

    def _call(self, *x: Tensor) -> Tensor:
        device = self.model.device
        with (
            float32_products(device.type, exact=not self.bf16),
            torch.autocast(device.type, torch.bfloat16, self.bf16),
        ):
            made: Tensor = self.model(*(part.to(device) for part in x))
        return made.float().cpu()

    def _retreat(self, windows: int) -> None:
        if self.model.device.type == "cpu":
            raise MemoryError
        self.max_batch = min(self.max_batch, windows) // 2
        if not self.max_batch:
            self.max_batch = 1
            self.model.to("cpu")
            self.bf16 = self.bf16 and computes_bf16("cpu")
        torch.cuda.empty_cache()
        how = "on the CPU" if self.model.device.type == "cpu" else f"with --batch {self.max_batch}"
        self.warnings = [f"{self.model.spec.name}: CUDA has too little memory; goes on {how}"]
