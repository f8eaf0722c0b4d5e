"""The training loop: one for all models and tasks, resumable at every step."""

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
from audiosr_cli.train.auxiliary import AuxiliaryTraining
from audiosr_cli.train.gan import DiscriminatorTrainer
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.memory import reduce_batch_size
from audiosr_cli.train.optimizers import make_optimizer, restore, step_if
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.resuming import Settings, changed_settings, current_names
from audiosr_cli.train.session import RunProgress, Session, snapshot
from audiosr_cli.train.signals import Interrupts
from audiosr_cli.train.stepping import GradientCheck, MetricsReadback, WeightAverage, restore_buffers
from audiosr_cli.train.tasks import Batch, Recordings, TrainingTask


class Trainer:
    """A model in training, with everything that a later process needs to continue.

    Batches are a function of the seed and the step.

    Args:
        model: The network in training.
        deployed: The network that users run, with the same weights (padding may differ, weights may be averaged); it is
            scored and exported.
        task: What the model is trained for.
        config: Budget, optimizer and schedule.
        out: The run's folder.
        ranks: The processes of the run.
        log: Gets all events.
        note: What is stored with the weights.
        identity: What a state must agree with to be resumed.
        settings: What a resumed state may differ from, with a warning.
        session: The deadline and exporter of this process.
    """

    def __init__(
        self,
        model: Model,
        deployed: Model,
        task: TrainingTask,
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
        self.joint_model = task.joint_model.to(ranks.device) if task.joint_model else None
        networks = nn.ModuleList([self.model, *([self.joint_model] if self.joint_model else [])])
        self.bf16 = config.precision == "bf16" and computes_bf16(ranks.device.type)
        self.optimizer = make_optimizer(
            config.optimizer, networks, config.learning_rate, config.weight_decay, config.betas, self.bf16
        )
        self.auxiliary = AuxiliaryTraining(task, self.model, self.optimizer, ranks)
        self._parameters = [*networks.parameters(), *self.auxiliary.parameters()]
        self.discriminators = (
            DiscriminatorTrainer(task.adversarial, config.discriminator_learning_rate, ranks)
            if task.adversarial
            else None
        )
        self.average = copy.deepcopy(model.state_dict()) if config.ema else None
        self.progress = RunProgress()
        self.session, self.minutes = session or Session(), config.minutes  # those until the deadline, if there is one
        self.network: Callable[..., Any] = self.auxiliary.network
        self.metrics_readback = MetricsReadback(deferred=ranks.device.type == "cuda")
        self._averager: WeightAverage | None = None
        self.gradient_check = GradientCheck(out, ranks.rank, log)
        self.scored: dict[str, float] = {}  # score of the last validation

    def save(self) -> None:
        """Write the whole state atomically over the older of two files."""
        if not self.ranks.is_leader:
            return
        state = {
            **vars(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "discriminators": self.discriminators.state() if self.discriminators else None,
            "joint_model": self.joint_model.state_dict() if self.joint_model else None,
            "auxiliary": self.auxiliary.state(),
            "identity": self.identity,
            "settings": self.settings,
            "init": self.note.get("init"),
        }
        checkpoint.save(self.out, state, self.progress.next_slot)
        self.progress.next_slot += 1

    def load(self) -> list[str]:
        """Restore the newest state in ``out``.

        Returns:
            Warnings, one line each: this state is not the newest one, or was trained with other settings.

        Raises:
            TrainingError: If the state is of another run, or there is none.
        """
        warnings: list[str] = []
        state, next_slot = checkpoint.load(self.out, warnings.append)
        state = current_names(state)
        if state.get("identity") != self.identity:
            raise TrainingError(f"{self.out}: contains a run of another [model] or [task]; use another --out")
        try:
            self.model.load_state_dict(state["model"])
            restore(self.optimizer, self.auxiliary.load(state.get("auxiliary") or {}, state["optimizer"]))
            if self.average is not None:
                self.average = {k: v.to(self.ranks.device) for k, v in (state["average"] or state["model"]).items()}
            if self.discriminators and state["discriminators"]:
                self.discriminators.load(state["discriminators"])
            if self.joint_model:
                self.joint_model.load_state_dict(state["joint_model"])
            self.progress = RunProgress(**{key: state[key] for key in vars(self.progress)})
        except (RuntimeError, KeyError, ValueError) as error:
            raise TrainingError(f"{self.out}: contains a run with another optimizer; use another --out") from error
        self.progress.next_slot = next_slot
        self.note = ({"init": state["init"]} if state["init"] else {}) | self.note
        if self.ranks.broadcast(self.progress.step) != self.progress.step:
            raise TrainingError(
                f"{self.out}: this machine's state differs from the leader's; put --out on a shared folder"
            )
        if changes := changed_settings(state.get("settings") or {}, self.settings):  # earlier versions had none
            warnings.append(changes)
        return warnings

    def share_done(self) -> float:
        """Return the share of the budget that is spent."""
        c, p = self.config, self.progress
        return p.step / c.steps if c.steps else p.minutes / max(self.minutes, 1e-9)

    def learning_rate(self) -> float:
        """Return the learning rate of this step and minute."""
        c, p, left = self.config, self.progress, max(0.0, 1 - self.share_done())
        factor = {
            "linear": min(1.0, left / c.cooldown) if c.cooldown else 1.0,
            "cosine": 0.5 * (1 - math.cos(math.pi * min(left, 1.0))),
            "plateau": 0.5**p.halvings,
        }[c.schedule]
        return c.learning_rate * min(1.0, (p.step + 1) / max(c.warmup_steps, 1)) * factor

    def _seed(self, *extra: int) -> int:
        text = "/".join(map(str, (self.config.seed, self.progress.step, *extra)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())

    def batch(self, recordings: Recordings) -> Batch:
        """Make this process's share of the current step's batch."""
        return self.task.batch(recordings, torch.Generator().manual_seed(self._seed()), self.ranks)

    def forward(self, *x: Any, **arguments: Any) -> Any:
        """Run the network; its output as float32, or what ``ModelWithHeads`` returns."""
        with torch.autocast(self.ranks.device.type, torch.bfloat16, self.bf16):
            output = self.network(*x, **arguments)
        return output.float() if isinstance(output, Tensor) else output

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Train one step. A batch whose gradient is not finite changes nothing.

        Returns:
            The weighted losses by name; on CUDA those of the previous step, and none at the first step.

        Raises:
            TrainingError: If ten consecutive gradients are not finite.
        """
        torch.manual_seed(self._seed(self.ranks.rank))  # dropout
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        terms, estimate, reference, items = self.auxiliary.losses(self.task, self.forward, batch)
        if self.discriminators:
            terms = terms | self.discriminators.step(estimate, reference, self.bf16, self.metrics_readback.deferred)
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        finite = torch.isfinite(nn.utils.clip_grad_norm_(self._parameters, self.config.clip_norm))
        self._update(finite, buffers)
        self.auxiliary.observe(batch, items)
        metrics = self.metrics_readback.send(self.progress.step, terms, finite, batch)
        self.progress.step += 1
        self.progress.audio_s += self.ranks.world * batch["input"].shape[0] * self.task.crop_s
        return self.gradient_check(metrics) if metrics else {}

    def _update(self, finite: Tensor, buffers: list[Tensor]) -> None:
        """Update weights and averages if the gradient is ``finite`` (); restore running statistics otherwise."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate() * group["scale"]
        if self.metrics_readback.deferred:
            step_if(finite, self.optimizer)
            restore_buffers(self.model.buffers(), buffers, finite)
            self._update_average(finite)
        elif bool(finite):
            self.optimizer.step()
            self._update_average()
        else:
            restore_buffers(self.model.buffers(), buffers)

    def _update_average(self, finite: Tensor | None = None) -> None:
        """Update the EMA of the weights, with a lower decay in the first steps (like Adam's bias correction)."""
        if self.average is None:
            return
        if self._averager is None or self._averager.average is not self.average:
            self._averager = WeightAverage(self.average, self.model.state_dict())
        weight = 1 - min(self.config.ema, (1 + self.progress.step) / (10 + self.progress.step))
        self._averager.update(weight, finite)

    def validate(self, recordings: Recordings) -> None:
        """Score the deployed network on the validation data, and export it if it is the best so far."""
        if self.ranks.is_leader:
            self.deployed.load_state_dict(self.average or self.model.state_dict())
            score = self.task.score(self.deployed, recordings)
            p = self.progress
            p.stale_validations, p.validated_step, p.validated_minutes = p.stale_validations + 1, p.step, p.minutes
            self.scored = {self.task.metric: round(score, 3)}
            if not math.isfinite(score):
                self.log.warn(p.step, f"{self.task.metric} is not finite")
            if score > p.best:
                p.best, p.stale_validations = score, 0
                self.export(score)
            if p.stale_validations >= self.config.patience:
                p.halvings, p.stale_validations = p.halvings + 1, 0
            extra = self.task.extra_scores(self.deployed, recordings)
            scores = {name: round(value, 4) for name, value in ({self.task.metric: score} | extra).items()}
            self.log.write({"event": "valid", **self.position(), **scores})
        self.progress.halvings = int(self.ranks.broadcast(self.progress.halvings))

    def position(self) -> dict[str, Any]:
        """Return step, minutes and hours of audio so far, for events and notes."""
        p = self.progress
        return {"step": p.step, "minutes": round(p.minutes, 2), "audio_hours": round(p.audio_s / 3600, 3)}

    def export(self, score: float) -> None:
        """Save the current weights, the best so far, as a checkpoint for ``--model``."""
        from audiosr_cli.checkpoints.store import save_model

        note = self.note | self.position() | {self.task.metric: round(score, 3)}
        save_model(self.deployed, self.out / f"{self.deployed.spec.name}.safetensors", note)
        if self.joint_model:
            save_model(self.joint_model, self.out / f"{self.joint_model.spec.name}.safetensors", note)

    def run(self, recordings: Recordings) -> None:
        """Train until the budget is spent, or a signal stops it after the current step. The state is always saved.

        Raises:
            TrainingError: If training cannot continue.
        """
        self.model.train()
        self.network = self.ranks.wrap(self.auxiliary.network)
        if self.config.compile:
            self.network = torch.compile(self.network)
        products = float32_products(self.ranks.device.type, exact=self.config.precision == "fp32")
        with Interrupts() as interrupts, products:
            try:
                self._run(recordings, interrupts)
                if metrics := self.metrics_readback.flush():
                    self.gradient_check(metrics)
            except TrainingError:
                self.save()
                raise
            snapshot(self)
            self.save()
        interrupts.end()

    def _run(self, recordings: Recordings, interrupts: Interrupts) -> None:
        """Train and validate; the first validation is before the first step, so that its errors show early."""
        p, c, s, mark = self.progress, self.config, self.session, time.monotonic()
        save_due = p.minutes + c.save_every_min
        while not self.ranks.broadcast(interrupts.signal_number):
            self.minutes = self.ranks.broadcast(s.budget(p.minutes, c.minutes))
            finished = self.ranks.broadcast(self.share_done() >= 1 or s.is_over())
            validate = p.validated_step < 0 or p.minutes >= p.validated_minutes + c.valid_every_min
            validate = (validate or bool(finished)) and p.validated_step != p.step
            if s.exporter and s.exporter.due():
                snapshot(self)
            if self.ranks.broadcast((validate or s.must_measure()) and s.has_time_for("validate")):
                with s.timed("validate"):
                    self.validate(recordings)
                mark = self._count_minutes(mark)
                p.validated_minutes = p.minutes  # the interval starts at the end of a validation
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
        """Add the time since ``since`` to the run's minutes; return the current time (monotonic, seconds)."""
        now = time.monotonic()
        self.progress.minutes = self.ranks.broadcast(self.progress.minutes + (now - since) / 60)
        return now

    def _try_step(self, recordings: Recordings) -> dict[str, float]:
        """Train one step; if memory runs out, skip it and halve the batch size.

        Raises TrainingError if the batch size is 1, or other processes wait for this one's gradients.
        """
        size = self.task.batch_size
        try:
            with self.session.timed("step"):
                return self.train_step(self.batch(recordings))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1 or self.ranks.world > 1:
                hint = "lower [task] crop_s or the model's widths" if size == 1 else "use a smaller --batch-size"
                raise TrainingError(f"not enough memory for a batch of {size}; {hint}") from error
        reduce_batch_size(self, size // 2)  # not in the handler, as its traceback references the step's tensors
        return {}

    def save_or_warn(self) -> None:
        """Save the state; a failure is a warning, except for the last save."""
        try:
            with self.session.timed("save"):
                self.save()
        except TrainingError as error:
            self.log.warn(self.progress.step, str(error))
