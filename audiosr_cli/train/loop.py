"""The training loop: one for every model and task, resumable to the step."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiosr_cli.errors import TrainingError
from audiosr_cli.models import Model
from audiosr_cli.runtime.device import computes_bf16, float32_products
from audiosr_cli.runtime.memory import is_out_of_memory
from audiosr_cli.train import checkpoint
from audiosr_cli.train.adversary import Opponent
from audiosr_cli.train.aids import Aids
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.memory import go_on_smaller
from audiosr_cli.train.optimizers import make_optimizer, restore, step_if
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.resuming import Settings, changed_settings
from audiosr_cli.train.session import Progress, Session, snapshot
from audiosr_cli.train.signals import Interrupts
from audiosr_cli.train.stepping import Average, Report, Reports, take_back
from audiosr_cli.train.tasks import Batch, Recordings, Task

_PATIENCE_NONFINITE = 10  # steps in a row whose gradient is not finite before a run gives up
_BATCHES_KEPT = 3


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
        session: Session | None = None,
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
        self.session, self.minutes = session or Session(), config.minutes  # the deadline's where there is one
        self.network: Callable[..., Any] = self.aids.learner
        self.reports = Reports(late=ranks.device.type == "cuda")
        self._average: Average | None = None
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

    def forward(self, *x: Any, **arguments: Any) -> Any:
        """The network's output as float32, or what ``Assisted`` returns."""
        with torch.autocast(self.ranks.device.type, torch.bfloat16, self.bf16):
            output = self.network(*x, **arguments)
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
            self.scored = {self.task.figure: round(score, 3)}
            if not math.isfinite(score):
                self.log.write({"event": "warning", "step": p.step, "text": f"{self.task.figure} is not finite"})
            if score > p.best:
                p.best, p.stale = score, 0
                self.export(score)
            if p.stale >= self.config.patience:
                p.halvings, p.stale = p.halvings + 1, 0
            extra = self.task.extra_scores(self.deployed, recordings)
            figures = {name: round(value, 4) for name, value in ({self.task.figure: score} | extra).items()}
            self.log.write({"event": "valid", **self.position(), **figures})
        self.progress.halvings = int(self.ranks.told(self.progress.halvings))

    def position(self) -> dict[str, Any]:
        """Return how far the run is, for rows and notes."""
        p = self.progress
        return {"step": p.step, "minutes": round(p.minutes, 2), "hours_heard": round(p.heard_s / 3600, 3)}

    def export(self, score: float) -> None:
        """The best weights so far, as a checkpoint that the commands can use."""
        from audiosr_cli.checkpoints.store import save_model

        note = self.note | self.position() | {self.task.figure: round(score, 3)}
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
                self._settle(self.reports.last())
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
                mark = self._count_minutes(mark)
                p.validated_minutes = p.minutes  # the next one is due that long after the end of this one
                save_due = 0.0
            if p.minutes >= save_due:
                self.save_or_warn()
                save_due = p.minutes + c.save_every_min
            if finished:
                break
            if terms := self._try_step(recordings):
                self.log.step(self.position() | {"lr": self.learning_rate()}, terms, self.share_done())
            mark = self._count_minutes(mark)

    def _count_minutes(self, since: float) -> float:
        """Add the time from ``since`` to now to the run's minutes; returns now (seconds of the monotonic clock)."""
        now = time.monotonic()
        self.progress.minutes = self.ranks.told(self.progress.minutes + (now - since) / 60)
        return now

    def _try_step(self, recordings: Recordings) -> dict[str, float]:
        """One step; where memory runs out, nothing but a smaller batch for the steps to come.

        Raises TrainingError where no batch is smaller, or other ranks wait for the gradients of this one.
        """
        size = self.task.batch_size
        try:
            with self.session.timed("step"):
                return self.train_step(self.batch(recordings))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1 or self.ranks.world > 1:
                cure = "lower [task] crop_s or the model's widths" if size == 1 else "use a smaller --batch-size"
                raise TrainingError(f"not enough memory for a batch of {size}; {cure}") from error
        go_on_smaller(self, size // 2)  # outside of the handler, as the traceback holds the tensors of the step
        return {}

    def save_or_warn(self) -> None:
        """A state that cannot be written now may be later; the last one has to."""
        try:
            with self.session.timed("save"):
                self.save()
        except TrainingError as error:
            self.log.write({"event": "warning", "step": self.progress.step, "text": str(error)})
