"""A model together with the arguments of one recording, and a model on a device as the engine runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model
from audiosr_cli.models.diffusion import Sampling
from audiosr_cli.runtime.device import computes_bf16, float32_products


@dataclass(frozen=True)
class ModelCall:
    """A model and those of its arguments that are the same for every window of a recording.

    Args:
        model: The model.
        cutoff_hz: Frequency at which the content of the recording ends. None leaves the model its default, and so it
            must be for a model that takes no cutoff.
        sampling: How a diffusion model draws; None for the default and for all other models.
    """

    model: Model
    cutoff_hz: float | None = None
    sampling: Sampling | None = None

    @property
    def spec(self) -> ModelSpec:
        """The model's."""
        return self.model.spec

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    def __call__(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        """Run the model on windows ``x``.

        Args:
            x: (B, inputs * C, window), on the model's device.
            position: (B,), the first sample of each window in its recording, for models that ask for it.

        Returns:
            (B, S, C, (window - 2 * context) * ratio).
        """
        arguments: dict[str, Any] = {}
        if self.cutoff_hz is not None:
            arguments["cutoff_hz"] = x.new_full((len(x),), self.cutoff_hz)
        if self.sampling is not None:
            arguments["sampling"] = self.sampling
        if position is not None:
            arguments["position"] = position
        output: Tensor = self.model(x, **arguments)
        return output


Runnable = Model | ModelCall  # a model by itself has the default of every argument


def as_call(model: Runnable) -> ModelCall:
    """Return ``model`` as a ``ModelCall``, with the model's own defaults unless it is one."""
    return model if isinstance(model, ModelCall) else ModelCall(model)


class Caller:
    """A model as the engine calls it. Where CUDA has too little memory: half the windows at once, at last the CPU.

    ``told`` says what had to be done, and the model stays where that brought it. With ``bf16`` it computes in that,
    unless it had to go where that is slow.
    """

    def __init__(self, model: Runnable, most: int, bf16: bool = False) -> None:
        self.call = as_call(model)
        self.model, self.most, self.bf16, self.told = self.call.model, most, bf16, list[str]()

    def __call__(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        """As the model, on its device, for tensors on the CPU."""
        try:
            with torch.inference_mode():
                parts = [slice(i, i + self.most) for i in range(0, len(x), self.most)]
                return torch.cat([self._call(x[i], None if position is None else position[i]) for i in parts])
        except torch.cuda.OutOfMemoryError:
            self._retreat(len(x))
        return self(x, position)

    def _call(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        device = self.model.device
        with (
            float32_products(device.type, exact=not self.bf16),
            torch.autocast(device.type, torch.bfloat16, self.bf16),
        ):
            output = self.call(x.to(device), position)
        return output.float().cpu()

    def _retreat(self, windows: int) -> None:
        if self.model.device.type == "cpu":
            raise MemoryError
        self.most = min(self.most, windows) // 2
        if not self.most:
            self.most = 1
            self.model.to("cpu")
            self.bf16 = self.bf16 and computes_bf16("cpu")
        torch.cuda.empty_cache()
        how = "on the CPU" if self.model.device.type == "cpu" else f"with --batch {self.most}"
        self.told = [f"{self.model.spec.name}: CUDA has too little memory; goes on {how}"]
