"""The other side of adversarial training: discriminators with their own optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from audiosr_cli.train.discriminators import (
    Discriminators,
    Judgement,
    adversarial_loss,
    discriminator_loss,
    feature_matching,
)
from audiosr_cli.train.optimizers import restore, step_if
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Adversary

_CLIP_NORM = 10.0


class Opponent:
    """Discriminators that learn to tell a model's output from the truth, and make it pay for what they tell."""

    def __init__(self, adversary: Adversary, learning_rate: float, ranks: Ranks) -> None:
        self.adversary, self.device = adversary, ranks.device
        self.critics = Discriminators(adversary.critics).to(ranks.device)
        self.shared = ranks.wrap(self.critics)
        self.optimizer = torch.optim.AdamW(self.critics.parameters(), lr=learning_rate, betas=(0.8, 0.99), fused=True)

    def play(self, estimate: Tensor, reference: Tensor, bf16: bool, late: bool = False) -> dict[str, Tensor]:
        """One step of the critics, and the generator's weighted terms; (B, T) both.

        ``late``: whether the device decides if the critics' gradient is finite, so that the host need not wait.
        """
        count = len(estimate)
        self.critics.requires_grad_(True)
        with torch.autocast(self.device.type, torch.bfloat16, bf16):
            made, true = _halves(self.shared(torch.cat([estimate.detach(), reference])), count)
        self.optimizer.zero_grad()
        discriminator_loss(made, true).backward()  # type: ignore[no-untyped-call]
        finite = torch.isfinite(nn.utils.clip_grad_norm_(self.critics.parameters(), _CLIP_NORM))
        if late:
            step_if(finite, self.optimizer)
        elif bool(finite):
            self.optimizer.step()
        self.critics.requires_grad_(False)
        with torch.autocast(self.device.type, torch.bfloat16, bf16):
            made, true = _halves(self.critics(torch.cat([estimate, reference])), count)
        return {
            "adversarial": self.adversary.adversarial * adversarial_loss(made),
            "features": self.adversary.features * feature_matching(made, true),
        }

    def state(self) -> dict[str, Any]:
        """What a resume needs."""
        return {"critics": self.critics.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.critics.load_state_dict(state["critics"])
        restore(self.optimizer, state["optimizer"])


def _halves(judgements: list[Judgement], count: int) -> tuple[list[Judgement], list[Judgement]]:
    """Judgements of two batches that went through together."""
    first = [(score[:count].float(), [h[:count].float() for h in maps]) for score, maps in judgements]
    second = [(score[count:].float(), [h[count:].float() for h in maps]) for score, maps in judgements]
    return first, second
