"""The training loop: one for every model and task, resumable to the step."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from audiosr_cli.device import computes_bf16, float32_products
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import Model
from audiosr_cli.train import checkpoint
from audiosr_cli.train.adversary import Opponent
from audiosr_cli.train.aids import Aids
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.log import Log
from audiosr_cli.train.optimizers import make_optimizer, restore, step_if
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.resuming import Settings, changed_settings
from audiosr_cli.train.signals import Interrupts
from audiosr_cli.train.stepping import Average, Report, Reports, take_back
from audiosr_cli.train.tasks import Batch, Recordings, Task

_PATIENCE_NONFINITE = 10  # steps in a row whose gradient is not finite before a run gives up
_BATCHES_KEPT = 3


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


@dataclass
class Progress:
    """How far a run is; everything here survives a resume."""

    step: int = 0
    minutes: float = 0.0
    heard_s: float = 0.0
    best: float = float("-inf")
    stale: int = 0  # validations since the best one, or since the rate was halved
    halvings: int = 0
    validated_step: int = -1
    validated_minutes: float = 0.0
    turn: int = 0  # which of the two states is written next


class Trainer:
    """A model in training, with everything a later process needs to go on where this one stopped.

    ``deployed`` has the same weights in the form that users run (padding may differ, weights may be
    averaged); it is what gets scored and exported. Batches are a function of the seed and the step.
    ``identity`` is what a state must agree with to be resumed, ``settings`` what it may differ from with a warning.
    """

    def __init__(
        self,
        model: Model,
        deployed: Model,
        task: Task,
        config: LoopConfig,
        out: Path,
        ranks: Ranks,
        log: Log,
        note: dict[str, Any],
        identity: str = "",
        settings: Settings | None = None,
    ) -> None:
        self.model, self.task, self.config, self.out = model.to(ranks.device), task, config, out
        self.ranks, self.log, self.note, self.identity, self.settings = ranks, log, note, identity, settings or {}
        if ranks.device.type == "cuda" and not config.channels_last:
            self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.deployed = deployed.to(ranks.device).requires_grad_(False).eval()
        self.partner = task.partner.to(ranks.device) if task.partner else None
        learners = nn.ModuleList([self.model, *([self.partner] if self.partner else [])])
        self.bf16 = config.precision == "bf16" and computes_bf16(ranks.device.type)
        self.optimizer = make_optimizer(
            config.optimizer, learners, config.learning_rate, config.weight_decay, config.betas, self.bf16
        )
        self.aids = Aids(task, self.model, self.optimizer, ranks)
        self._learning = [*learners.parameters(), *self.aids.parameters()]
        self.opponent = Opponent(task.adversary, config.critic_rate, ranks) if task.adversary else None
        self.average = copy.deepcopy(model.state_dict()) if config.ema else None
        self.progress = Progress()
        self.network: Callable[..., Any] = self.aids.learner
        self.reports = Reports(late=ranks.device.type == "cuda")
        self._average: Average | None = None
        self._nonfinite = 0

    def save(self) -> None:
        """Write the whole state, atomically, over the older of two."""
        if not self.ranks.leads:
            return
        state = {
            **vars(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "opponent": self.opponent.state() if self.opponent else None,
            "partner": self.partner.state_dict() if self.partner else None,
            "aids": self.aids.state(),
            "identity": self.identity,
            "settings": self.settings,
            "init": self.note.get("init"),
        }
        checkpoint.save(self.out, state, self.progress.turn)
        self.progress.turn += 1

    def load(self) -> list[str]:
        """Go on from the newest state in ``out``.

        Returns:
            Warnings, a line each: that this state is not the newest one, or was trained with other settings.

        Raises:
            TrainingError: The state is of another run, or there is none.
        """
        warnings: list[str] = []
        state, turn = checkpoint.load(self.out, warnings.append)
        if state.get("identity") != self.identity:
            raise TrainingError(f"{self.out}: holds a run of another [model] or [task]; train to a new --out")
        try:
            self.model.load_state_dict(state["model"])
            restore(self.optimizer, self.aids.load(state.get("aids") or {}, state["optimizer"]))
            if self.average is not None:
                self.average = {k: v.to(self.ranks.device) for k, v in (state["average"] or state["model"]).items()}
            if self.opponent and state["opponent"]:
                self.opponent.load(state["opponent"])
            if self.partner:
                self.partner.load_state_dict(state["partner"])
            self.progress = Progress(**{key: state[key] for key in vars(self.progress)})
        except (RuntimeError, KeyError, ValueError) as error:
            raise TrainingError(f"{self.out}: holds a run of another optimizer; train to a new --out") from error
        self.progress.turn = turn
        self.note = ({"init": state["init"]} if state["init"] else {}) | self.note
        if self.ranks.told(self.progress.step) != self.progress.step:
            raise TrainingError(f"{self.out}: this machine's state is not the leader's; share the run's folder")
        if changes := changed_settings(state.get("settings") or {}, self.settings):  # earlier versions kept none
            warnings.append(changes)
        return warnings

    def share_done(self) -> float:
        """How much of the budget is spent, from 0 on."""
        c, p = self.config, self.progress
        return p.step / c.steps if c.steps else p.minutes / c.minutes

    def learning_rate(self) -> float:
        """The rate at this step and minute."""
        c, p, left = self.config, self.progress, max(0.0, 1 - self.share_done())
        factor = {
            "linear": min(1.0, left / c.cooldown) if c.cooldown else 1.0,
            "cosine": 0.5 * (1 - math.cos(math.pi * min(left, 1.0))),
            "plateau": 0.5**p.halvings,
        }[c.schedule]
        return c.learning_rate * min(1.0, (p.step + 1) / max(c.warmup_steps, 1)) * factor

    def _seed(self, *more: int) -> int:
        text = "/".join(map(str, (self.config.seed, self.progress.step, *more)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())

    def batch(self, recordings: Recordings) -> Batch:
        """The batch of the current step, as much of it as is for this rank."""
        return self.task.batch(recordings, torch.Generator().manual_seed(self._seed()), self.ranks)

    def forward(self, *x: Any) -> Any:
        """The network's output as float32, or what ``Assisted`` returns."""
        with torch.autocast(self.ranks.device.type, torch.bfloat16, self.bf16):
            output = self.network(*x)
        return output.float() if isinstance(output, Tensor) else output

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step. A batch whose gradient is not finite changes nothing.

        Returns:
            The terms of its loss; on CUDA those of the step before, none at the first.

        Raises:
            TrainingError: Ten gradients in a row are not finite.
        """
        torch.manual_seed(self._seed(self.ranks.rank))  # dropout
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        terms, estimate, reference, items = self.aids.losses(self.task, self.forward, batch)
        if self.opponent:
            terms = terms | self.opponent.play(estimate, reference, self.bf16, self.reports.late)
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        finite = torch.isfinite(nn.utils.clip_grad_norm_(self._learning, self.config.clip_norm))
        self._update(finite, buffers)
        self.aids.observe(batch, items)
        due = self.reports.send(self.progress.step, terms, finite, batch)
        self.progress.step += 1
        self.progress.heard_s += self.ranks.world * batch["input"].shape[0] * self.task.crop_s
        return self._settle(due)

    def _update(self, finite: Tensor, buffers: list[Tensor]) -> None:
        """Change weights and averages if the gradient is ``finite`` (); give back running statistics if not."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate() * group["scale"]
        if self.reports.late:
            step_if(finite, self.optimizer)
            take_back(self.model.buffers(), buffers, finite)
            self._follow(finite)
        elif bool(finite):
            self.optimizer.step()
            self._follow()
        else:
            take_back(self.model.buffers(), buffers)

    def _follow(self, finite: Tensor | None = None) -> None:
        """Move the averaged weights towards the model's; faster at first (Adam's reasoning on bias)."""
        if self.average is None:
            return
        if self._average is None or self._average.average is not self.average:
            self._average = Average(self.average, self.model.state_dict())
        weight = 1 - min(self.config.ema, (1 + self.progress.step) / (10 + self.progress.step))
        self._average.follow(weight, finite)

    def _settle(self, report: Report | None) -> dict[str, float]:
        """Act on a step that was not finite; returns the terms of its loss, or none without ``report``."""
        if report is None:
            return {}
        self._nonfinite = 0 if report.finite else self._nonfinite + 1
        if not report.finite:
            self._warn_not_finite(report.step, report.batch)
        return report.terms

    def _warn_not_finite(self, step: int, batch: Batch) -> None:
        text = f"step {step}: the gradient is not finite; the step is skipped"
        if len(list(self.out.glob(f"nonfinite-*-rank{self.ranks.rank}.pt"))) < _BATCHES_KEPT:
            kept = self.out / f"nonfinite-{step}-rank{self.ranks.rank}.pt"
            torch.save({key: value.cpu() for key, value in batch.items()}, kept)
            text += f", its batch is in {kept}"
        self.log.write({"event": "warning", "step": step, "text": text})
        if self._nonfinite >= _PATIENCE_NONFINITE:
            raise TrainingError(
                f"{text}; {self._nonfinite} in a row: lower [loop] learning_rate, or resume with precision = 'fp32'"
            )

    def validate(self, recordings: Recordings) -> None:
        """Score what users will run on the valid split, and keep the best weights."""
        if self.ranks.leads:
            self.deployed.load_state_dict(self.average or self.model.state_dict())
            score = self.task.score(self.deployed, recordings.valid)
            p = self.progress
            p.stale, p.validated_step, p.validated_minutes = p.stale + 1, p.step, p.minutes
            if not math.isfinite(score):
                self.log.write({"event": "warning", "step": p.step, "text": f"{self.task.figure} is not finite"})
            if score > p.best:
                p.best, p.stale = score, 0
                self.export(score)
            if p.stale >= self.config.patience:
                p.halvings, p.stale = p.halvings + 1, 0
            extra = self.task.extra_scores(self.deployed, recordings)
            figures = {name: round(value, 4) for name, value in ({self.task.figure: score} | extra).items()}
            self.log.write({"event": "valid", **self._position(), **figures})
        self.progress.halvings = int(self.ranks.told(self.progress.halvings))

    def _position(self) -> dict[str, Any]:
        p = self.progress
        return {"step": p.step, "minutes": round(p.minutes, 2), "hours_heard": round(p.heard_s / 3600, 3)}

    def export(self, score: float) -> None:
        """The best weights so far, as a checkpoint that the commands can use."""
        from audiosr_cli.weights import save_model

        note = self.note | self._position() | {self.task.figure: round(score, 3)}
        save_model(self.deployed, self.out / f"{self.deployed.spec.name}.safetensors", note)
        if self.partner:
            save_model(self.partner, self.out / f"{self.partner.spec.name}.safetensors", note)

    def run(self, recordings: Recordings) -> None:
        """Train until the budget is spent; SIGINT and SIGTERM end it after the step, with the state saved.

        Raises TrainingError where it cannot go on, with the state saved, too.
        """
        self.model.train()
        self.network = self.ranks.wrap(self.aids.learner)
        if self.config.compile:
            self.network = torch.compile(self.network)
        products = float32_products(self.ranks.device.type, exact=self.config.precision == "fp32")
        with Interrupts() as interrupts, products:
            try:
                self._run(recordings, interrupts)
            except TrainingError:
                self.save()
                raise
            self._settle(self.reports.last())
            self.save()
        interrupts.end()

    def _run(self, recordings: Recordings, interrupts: Interrupts) -> None:
        """Validates before the first step, too: so does whatever would fail there."""
        p, c, mark = self.progress, self.config, time.monotonic()
        save_due = p.minutes + c.save_every_min
        while not self.ranks.told(interrupts.wanted):
            finished = self.share_done() >= 1
            validate = p.validated_step < 0 or p.minutes >= p.validated_minutes + c.valid_every_min
            if self.ranks.told((validate or finished) and p.validated_step != p.step):
                self.validate(recordings)
                save_due = 0.0
            if p.minutes >= save_due:
                self._save_or_warn()
                save_due = p.minutes + c.save_every_min
            if finished:
                break
            if terms := self.train_step(self.batch(recordings)):
                self.log.step(self._position() | {"lr": self.learning_rate()}, terms, self.share_done())
            now = time.monotonic()
            p.minutes, mark = self.ranks.told(p.minutes + (now - mark) / 60), now

    def _save_or_warn(self) -> None:
        """A state that cannot be written now may be later; the last one has to."""
        try:
            self.save()
        except TrainingError as error:
            self.log.write({"event": "warning", "step": self.progress.step, "text": str(error)})
