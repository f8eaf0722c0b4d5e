"""The training loop: one for every model, resumable to the step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from audiosr_cli.audio.write import atomic_path
from audiosr_cli.errors import TrainingError
from audiosr_cli.models import Model
from audiosr_cli.train.data import Corpus
from audiosr_cli.train.tasks import TrainingTask


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast; ``minutes`` is the budget of the whole run, over all resumes.

    The rate warms up for ``warmup_steps``, stays at ``learning_rate``, and falls linearly to zero over the
    last ``cooldown`` share of the budget.
    """

    minutes: float = 30.0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 200
    cooldown: float = 0.3
    clip_norm: float = 5.0
    valid_every_min: float = 5.0
    seed: int = 0


class Trainer:
    """A model in training, with everything a later process needs to go on where this one stopped.

    ``deployed`` has the same weights in the form that users run (padding may differ); it stays on the CPU
    and is what gets scored and exported.
    """

    def __init__(
        self,
        model: Model,
        deployed: Model,
        task: TrainingTask,
        config: LoopConfig,
        out: Path,
        device: torch.device,
        note: dict[str, Any],
    ) -> None:
        self.model, self.task, self.config, self.out, self.device, self.note = model, task, config, out, device, note
        self.deployed = deployed.requires_grad_(False).eval()
        self.model.to(device)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step, self.minutes, self.heard_s, self.best = 0, 0.0, 0.0, float("-inf")

    @property
    def state_path(self) -> Path:
        """The checkpoint this run resumes from."""
        return self.out / "state.pt"

    def save(self) -> None:
        """Write the whole state, atomically."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "progress": [self.step, self.minutes, self.heard_s, self.best],
        }
        with atomic_path(self.state_path) as part:
            torch.save(state, part)

    def load(self) -> None:
        """Go on from ``state_path``."""
        try:
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
        except (RuntimeError, KeyError, UnpicklingError) as error:
            raise TrainingError(
                f"{self.state_path}: is damaged, or of another [model]; train to a new --out"
            ) from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        self.step, self.minutes, self.heard_s, self.best = state["progress"]

    def learning_rate(self) -> float:
        """The rate at this step and minute."""
        c = self.config
        left = (1 - self.minutes / c.minutes) / c.cooldown if c.cooldown > 0 else 1.0
        return c.learning_rate * min(1.0, (self.step + 1) / c.warmup_steps) * min(1.0, max(left, 0.0))

    def train_step(self, corpus: Corpus) -> float:
        """One batch; returns its loss. A batch whose gradient is not finite changes nothing."""
        x, target = (part.to(self.device) for part in self.task.batch(corpus, self.generator))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with torch.autocast(self.device.type, torch.bfloat16):
            estimate = self.model(x)
        loss = self.task.loss(estimate.float(), target)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self.heard_s += x.shape[0] * x.shape[-1] / self.model.spec.in_rate
        return float(loss.detach())

    def validate(self, corpus: Corpus, loss: float) -> dict[str, Any]:
        """Score what users will run on the valid split, keep the best weights, append to metrics.jsonl."""
        self.deployed.load_state_dict(self.model.state_dict())
        score = self.task.score(self.deployed, corpus)
        if score > self.best:
            self.best = score
            self.export(score)
        row = {"step": self.step, "minutes": round(self.minutes, 2), "hours_heard": round(self.heard_s / 3600, 3)}
        row |= {"loss": round(loss, 4), self.task.figure: round(score, 4), "lr": self.learning_rate()}
        with (self.out / "metrics.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        self.save()
        return row

    def export(self, score: float) -> None:
        """The best weights so far, as a checkpoint that the commands can use."""
        from audiosr_cli.weights import save_model

        note = self.note | {"steps": self.step, "minutes": round(self.minutes, 1), self.task.figure: round(score, 3)}
        note["hours_heard"] = round(self.heard_s / 3600, 2)
        save_model(self.deployed, self.out / f"{self.deployed.spec.name}.safetensors", note)

    def run(self, train: Corpus, valid: Corpus, report: Callable[[dict[str, Any]], None]) -> None:
        """Train until the budget is spent; ``report`` gets each row of metrics.jsonl.

        Being interrupted saves the state.
        """
        self.model.train()
        try:
            self._run(train, valid, report)
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM
            self.save()
            raise

    def _run(self, train: Corpus, valid: Corpus, report: Callable[[dict[str, Any]], None]) -> None:
        mark = time.monotonic()
        due, running = self.minutes + self.config.valid_every_min, float("nan")
        while self.minutes < self.config.minutes:
            loss = self.train_step(train)
            running = loss if running != running else 0.99 * running + 0.01 * loss
            now = time.monotonic()
            self.minutes, mark = self.minutes + (now - mark) / 60, now
            if self.minutes >= due or self.minutes >= self.config.minutes:
                report(self.validate(valid, running))
                mark, due = time.monotonic(), self.minutes + self.config.valid_every_min
