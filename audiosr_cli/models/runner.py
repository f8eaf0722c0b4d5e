"""A model together with the arguments of one recording, and a model on a device as the engine runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.averaging import average, averaged_spec, starts_within_hop
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
        starts: Windows over which a separator is averaged; they start at different places within a frame. More than
            one is for separators only.
    """

    model: Model
    cutoff_hz: float | None = None
    sampling: Sampling | None = None
    starts: int = 1

    @property
    def spec(self) -> ModelSpec:
        """The model's; with several starts, that of all windows together."""
        return self.model.spec if self.starts == 1 else averaged_spec(self.model.spec, self._starts)

    @property
    def _starts(self) -> list[int]:
        return starts_within_hop(self.model.frame_hop, self.starts)

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    def __call__(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        """Run the model on windows ``x``.

        Args:
            x: (B, inputs * C, window), on the model's device; the window is that of ``spec``.
            position: (B,), the first sample of each window in its recording, for models that ask for it.

        Returns:
            (B, S, C, (window - 2 * context) * ratio).
        """
        if self.starts > 1:
            return average(self.model, self.model.spec, self._starts, x)
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


class ModelRunner:
    """Call a model on its device, with tensors on the CPU.

    If CUDA runs out of memory, the batch is halved, and a model that cannot process even one window moves to the CPU.
    Both last for all later calls, and the model stays on the CPU.

    Args:
        model: The model, with its arguments if it needs any.
        max_batch: Most windows in one call of the model.
        bf16: Compute matrix products and convolutions in bfloat16; ignored after a move to a CPU where that is slow.

    Attributes:
        max_batch: The same, as halved so far.
        warnings: What had to be changed for lack of memory.
    """

    def __init__(self, model: Runnable, max_batch: int, bf16: bool = False) -> None:
        self.call = as_call(model)
        self.model, self.max_batch, self.bf16 = self.call.model, max_batch, bf16
        self.warnings = list[str]()

    def __call__(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        """Run the model.

        Args:
            x: Windows (B, inputs * C, window).
            position: (B,), the first sample of each window in its recording, for models that ask for it.

        Returns:
            (B, S, C, (window - 2 * context) * ratio), float32 on the CPU.

        Raises:
            MemoryError: If the CPU has too little memory, too.
        """
        try:
            with torch.inference_mode():
                slices = [slice(i, i + self.max_batch) for i in range(0, len(x), self.max_batch)]
                return torch.cat([self._call(x[i], None if position is None else position[i]) for i in slices])
        except torch.cuda.OutOfMemoryError:
            self._reduce_memory(len(x))
        return self(x, position)

    def _call(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        device = self.model.device
        with (
            float32_products(device.type, exact=not self.bf16),
            torch.autocast(device.type, torch.bfloat16, self.bf16),
        ):
            output = self.call(x.to(device), position)
        return output.float().cpu()

    def _reduce_memory(self, windows: int) -> None:
        """Halve the batch, or move the model to the CPU."""
        if self.model.device.type == "cpu":
            raise MemoryError
        self.max_batch = min(self.max_batch, windows) // 2
        if not self.max_batch:
            self.max_batch = 1
            self.model.to("cpu")
            self.bf16 = self.bf16 and computes_bf16("cpu")
        torch.cuda.empty_cache()
        remedy = "on the CPU" if self.model.device.type == "cpu" else f"with --batch {self.max_batch}"
        self.warnings = [f"{self.model.spec.name}: not enough CUDA memory; continuing {remedy}"]
