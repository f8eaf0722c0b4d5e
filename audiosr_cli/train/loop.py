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

from audiosr_cli.allocator import ran_out
from audiosr_cli.device import computes_bf16
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import Model
from audiosr_cli.train import checkpoint
from audiosr_cli.train.adversary import Opponent
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.log import Log
from audiosr_cli.train.memory import go_on_smaller
from audiosr_cli.train.optimizers import make_optimizer, restore
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.session import Progress, Session, snapshot
from audiosr_cli.train.signals import Interrupts
from audiosr_cli.train.tasks import Batch, Recordings, Task

_PATIENCE_NONFINITE = 10  # steps in a row whose gradient is not finite before a run gives up
_BATCHES_KEPT = 3


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast.

    The budget is ``minutes`` of wall time over all resumes, or ``steps`` where that is above 0: then the weights
    are a function of config and data alone (but under ``plateau``, as validations follow the clock). The rate
    warms up for ``warmup_steps``; under the ``linear`` schedule it then stays and falls to zero over the last
    ``cooldown`` share of the budget, under ``cosine`` it falls all along, under ``plateau`` it halves after
    ``patience`` validations without a better score. ``ema`` is the decay of the averaged weights that are
    validated and exported, 0 for none. ``compile`` pays for itself within minutes on CPUs. ``precision`` is what
    matrix products and convolutions run in: bf16 becomes fp32 on processors that only emulate it.
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


class Trainer:
    """A model in training, with everything a later process needs to go on where this one stopped.

    ``deployed`` has the same weights in the form that users run (padding may differ, weights may be
    averaged); it is what gets scored and exported. Batches are a function of the seed and the step.
    ``identity`` is what a state must agree with to be resumed.
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
        session: Session | None = None,
    ) -> None:
        self.model, self.task, self.config, self.out = model.to(ranks.device), task, config, out
        self.ranks, self.log, self.note, self.identity = ranks, log, note, identity
        self.deployed = deployed.to(ranks.device).requires_grad_(False).eval()
        self.partner = task.partner.to(ranks.device) if task.partner else None
        learners = nn.ModuleList([self.model, *([self.partner] if self.partner else [])])
        self.optimizer = make_optimizer(
            config.optimizer, learners, config.learning_rate, config.weight_decay, config.betas
        )
        self._learning = list(learners.parameters())
        self.opponent = Opponent(task.adversary, config.critic_rate, ranks) if task.adversary else None
        self.average = copy.deepcopy(model.state_dict()) if config.ema else None
        self.progress = Progress()
        self.session, self.minutes = session or Session(), config.minutes  # the deadline's where there is one
        self.network: Callable[..., Tensor] = self.model
        self.bf16 = config.precision == "bf16" and computes_bf16(ranks.device.type)
        self._nonfinite = 0
        self.scored: dict[str, float] = {}  # by the last validation

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
            "identity": self.identity,
            "init": self.note.get("init"),
        }
        checkpoint.save(self.out, state, self.progress.turn)
        self.progress.turn += 1

    def load(self) -> None:
        """Go on from the newest state in ``out``. Raises TrainingError where it is of another run."""
        state, turn = checkpoint.load(self.out)
        if state.get("identity") != self.identity:
            raise TrainingError(f"{self.out}: holds a run of another [model] or [task]; train to a new --out")
        try:
            self.model.load_state_dict(state["model"])
            restore(self.optimizer, state["optimizer"])
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

    def share_done(self) -> float:
        """How much of the budget is spent, from 0 on."""
        c, p = self.config, self.progress
        return p.step / c.steps if c.steps else p.minutes / max(self.minutes, 1e-9)

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

    def forward(self, *x: Any) -> Tensor:
        """The network's output as float32."""
        with torch.autocast(self.ranks.device.type, torch.bfloat16, self.bf16):
            return self.network(*x).float()

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step; returns the terms of its loss. A batch whose gradient is not finite changes nothing."""
        torch.manual_seed(self._seed(self.ranks.rank))  # dropout
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        terms, estimate, reference = self.task.losses(self.forward, batch)
        if self.opponent:
            terms = terms | self.opponent.play(estimate, reference, self.bf16)
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._learning, self.config.clip_norm)
        if bool(torch.isfinite(norm)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate() * group["scale"]
            self.optimizer.step()
            self._follow()
            self._nonfinite = 0
        else:
            for buffer, kept in zip(self.model.buffers(), buffers, strict=True):  # running statistics
                buffer.copy_(kept)
            self._warn_not_finite(batch)
        self.progress.step += 1
        self.progress.heard_s += self.ranks.world * batch["input"].shape[0] * self.task.crop_s
        values: list[float] = torch.stack(list(terms.values())).tolist()
        return dict(zip(terms, values, strict=True))

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights towards the model's; faster at first (Adam's reasoning on bias)."""
        if self.average is None:
            return
        weight = 1 - min(self.config.ema, (1 + self.progress.step) / (10 + self.progress.step))
        for mine, new in zip(self.average.values(), self.model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(new, weight)
            else:
                mine.copy_(new)

    def _warn_not_finite(self, batch: Batch) -> None:
        self._nonfinite += 1
        step = self.progress.step
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
            self.scored = {self.task.figure: round(score, 3)}
            if not math.isfinite(score):
                self.log.write({"event": "warning", "step": p.step, "text": f"{self.task.figure} is not finite"})
            if score > p.best:
                p.best, p.stale = score, 0
                self.export(score)
            if p.stale >= self.config.patience:
                p.halvings, p.stale = p.halvings + 1, 0
            self.log.write({"event": "valid", **self.position(), self.task.figure: round(score, 4)})
        self.progress.halvings = int(self.ranks.told(self.progress.halvings))

    def position(self) -> dict[str, Any]:
        """How far the run is, for rows and notes."""
        p = self.progress
        return {"step": p.step, "minutes": round(p.minutes, 2), "hours_heard": round(p.heard_s / 3600, 3)}

    def export(self, score: float) -> None:
        """The best weights so far, as a checkpoint that the commands can use."""
        from audiosr_cli.weights import save_model

        note = self.note | self.position() | {self.task.figure: round(score, 3)}
        save_model(self.deployed, self.out / f"{self.deployed.spec.name}.safetensors", note)
        if self.partner:
            save_model(self.partner, self.out / f"{self.partner.spec.name}.safetensors", note)

    def run(self, recordings: Recordings) -> None:
        """Train until the budget is spent; SIGINT and SIGTERM end it after the step, with the state saved.

        Raises TrainingError where it cannot go on, with the state saved, too.
        """
        self.model.train()
        self.network = self.ranks.wrap(self.model)
        if self.config.compile:
            self.network = torch.compile(self.network)
        with Interrupts() as interrupts:
            try:
                self._run(recordings, interrupts)
            except TrainingError:
                self.save()
                raise
            snapshot(self)
            self.save()
        interrupts.end()

    def _run(self, recordings: Recordings, interrupts: Interrupts) -> None:
        """Validates before the first step, too: so does whatever would fail there."""
        p, c, s, mark = self.progress, self.config, self.session, time.monotonic()
        save_due = p.minutes + c.save_every_min
        while not self.ranks.told(interrupts.wanted):
            self.minutes = self.ranks.told(s.budget(p.minutes, c.minutes))
            finished = self.ranks.told(self.share_done() >= 1 or s.is_over())
            validate = p.validated_step < 0 or p.minutes >= p.validated_minutes + c.valid_every_min
            validate = (validate or bool(finished)) and p.validated_step != p.step
            if s.exporter and s.exporter.due():
                snapshot(self)
            if self.ranks.told((validate or s.must_measure()) and s.has_time_for("validate")):
                with s.timed("validate"):
                    self.validate(recordings)
                save_due = 0.0
            if p.minutes >= save_due:
                self.save_or_warn()
                save_due = p.minutes + c.save_every_min
            if finished:
                break
            if terms := self._try_step(recordings):
                self.log.step(self.position() | {"lr": self.learning_rate()}, terms, self.share_done())
            now = time.monotonic()
            p.minutes, mark = self.ranks.told(p.minutes + (now - mark) / 60), now

    def _try_step(self, recordings: Recordings) -> dict[str, float]:
        """One step; where memory runs out, nothing but a smaller batch for the steps to come.

        Raises TrainingError where no batch is smaller, or other ranks wait for the gradients of this one.
        """
        size = self.task.batch_size
        try:
            with self.session.timed("step"):
                return self.train_step(self.batch(recordings))
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            if size == 1 or self.ranks.world > 1:
                raise TrainingError(f"not enough memory for a batch of {size}; use a smaller --batch-size") from error
        go_on_smaller(self, size // 2)  # outside of the handler, as the traceback holds the tensors of the step
        return {}

    def save_or_warn(self) -> None:
        """A state that cannot be written now may be later; the last one has to."""
        try:
            with self.session.timed("save"):
                self.save()
        except TrainingError as error:
            self.log.write({"event": "warning", "step": self.progress.step, "text": str(error)})
