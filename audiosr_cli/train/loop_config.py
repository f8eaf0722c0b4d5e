"""The [loop] table of a training config: budget, optimizer and schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from audiosr_cli.errors import UsageError
from audiosr_cli.train.checks import positive, within


@dataclass(frozen=True)
class LoopConfig:
    """Budget, optimizer, learning rate schedule and precision of a run.

    With ``steps`` on a CPU, the weights depend on config and data only (except under the plateau schedule, as
    validations follow the clock). On CUDA they nearly do: its sums have no fixed order.

    Attributes:
        minutes: Budget of wall time over all resumes.
        steps: Budget of steps; replaces ``minutes`` if above 0.
        optimizer: AdamW, or Muon for matrices and AdamW for the rest.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        betas: AdamW's decay rates of the first and second moment.
        discriminator_learning_rate: Learning rate of the discriminators, if the task has any.
        warmup_steps: Steps of linear warm-up.
        schedule: linear stays at the peak and falls to 0 over the last ``cooldown`` of the budget; cosine falls over
            the whole budget; plateau halves the rate after ``patience`` validations without a better score.
        cooldown: Share of the budget, for the linear schedule.
        patience: Validations, for the plateau schedule.
        clip_norm: Largest norm of the gradient.
        ema: Decay of the exponential moving average of the weights, which is validated and exported; 0 for none.
        precision: Of matrix products and convolutions. bf16 becomes fp32 on processors that only emulate it; on CUDA,
            fp32 does not use TF32.
        compile: Whether to use torch.compile, which pays off within minutes on CPUs.
        channels_last: Memory layout of a spectral_unet on CUDA; which one is faster depends on the GPU.
        valid_every_min: Minutes between validations.
        save_every_min: Minutes between saved states.
        seed: Seed of weights and batches.
    """

    minutes: float = 30.0
    steps: int = 0
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.98)
    discriminator_learning_rate: float = 2e-4
    warmup_steps: int = 200
    schedule: Literal["linear", "cosine", "plateau"] = "linear"
    cooldown: float = 0.3
    patience: int = 3
    clip_norm: float = 5.0
    ema: float = 0.0
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = False
    channels_last: bool = True
    valid_every_min: float = 5.0
    save_every_min: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        within(self, 0, 1e9, "steps", "warmup_steps", "seed")
        within(self, 0, 1e9, "learning_rate", "discriminator_learning_rate", "weight_decay")
        within(self, 0, 1, "cooldown")
        if not 0 <= min(self.betas) <= max(self.betas) < 1:
            raise UsageError(f"betas = {list(self.betas)}: each must be at least 0 and below 1")
        within(self, 0, 0.999999, "ema")
        positive(self, "minutes", "patience", "clip_norm", "valid_every_min", "save_every_min")
