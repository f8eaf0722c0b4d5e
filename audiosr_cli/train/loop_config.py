"""How long a run trains and how fast: the [loop] table of its config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from audiosr_cli.errors import UsageError
from audiosr_cli.train.checks import positive, within


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast.

    The budget is ``minutes`` of wall time over all resumes, or ``steps`` where that is above 0: then the weights
    are a function of config and data alone on a CPU (but under ``plateau``, as validations follow the clock), and
    nearly so on CUDA, which adds in no fixed order. The rate
    warms up for ``warmup_steps``; under the ``linear`` schedule it then stays and falls to zero over the last
    ``cooldown`` share of the budget, under ``cosine`` it falls all along, under ``plateau`` it halves after
    ``patience`` validations without a better score. ``ema`` is the decay of the averaged weights that are
    validated and exported, 0 for none. ``compile`` pays for itself within minutes on CPUs. ``precision`` is what
    matrix products and convolutions run in: bf16 becomes fp32 on processors that only emulate it; on CUDA fp32 is
    without TF32. ``channels_last`` false has CUDA train a ``spectral_unet`` in torch's plain layout: time both.
    """

    minutes: float = 30.0
    steps: int = 0
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.98)
    critic_rate: float = 2e-4
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
        within(self, 0, 1e9, "steps", "learning_rate", "critic_rate", "weight_decay", "warmup_steps", "seed")
        within(self, 0, 1, "cooldown")
        if not 0 <= min(self.betas) <= max(self.betas) < 1:
            raise UsageError(f"betas = {list(self.betas)}: each must be at least 0 and below 1")
        within(self, 0, 0.999999, "ema")
        positive(self, "minutes", "patience", "clip_norm", "valid_every_min", "save_every_min")
