"""train/stepping.py and train/transfer.py: steps that the host does not wait for, and what they must not change."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from corpora import generator, voices
from torch.utils._python_dispatch import TorchDispatchMode

from audiosr_cli.errors import TrainingError
from audiosr_cli.models import build, make_config
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.stepping import MetricsReadback, WeightAverage, restore_buffers
from audiosr_cli.train.tasks import Recordings, Separation, Upsampling
from audiosr_cli.train.tasks.upsampling import UpsamplingLossWeights
from audiosr_cli.train.transfer import _pack, _unpack, upload_all

CPU = torch.device("cpu")
WAVE_U_NET = {"sample_rate": 8000, "depth": 3, "filters": 8, "core": 512, "norm": True, "bias": False}
AUDIO_UNET = {"filters": [4, 8], "kernels": [9, 5], "core": 1024, "bias": False}


def separating(out: Path, deferred: bool, **loop: Any) -> tuple[Trainer, Recordings, list[dict[str, Any]]]:
    """A trainer that reads the metrics of each step immediately, or as on CUDA."""
    torch.manual_seed(0)
    config = make_config("wave_u_net", WAVE_U_NET | {"output": "linear", "difference": False, "valid": False})
    models, rows = [build("wave_u_net", config) for _ in range(2)], list[dict[str, Any]]()
    settings = {"precision": "fp32", "optimizer": "muon", "ema": 0.9, "learning_rate": 3e-3, "warmup_steps": 1}
    task = Separation(models[0].spec, 2, 0.256)
    trainer = Trainer(*models, task, LoopConfig(**settings | loop), out, Ranks(), Log(rows.append), {})
    trainer.metrics_readback = MetricsReadback(deferred)
    return trainer, Recordings(voices(3), voices(2)), rows


def upsampling(out: Path, deferred: bool) -> tuple[Trainer, Recordings]:
    torch.manual_seed(0)
    models = [build("audio_unet", make_config("audio_unet", AUDIO_UNET)) for _ in range(2)]
    task = Upsampling(
        models[0].spec, 2, 0.1, loss_weights=UpsamplingLossWeights(adversarial=0.1, feature_matching=1.0, mel=1.0)
    )
    loop = LoopConfig(precision="fp32", ema=0.9)
    trainer = Trainer(*models, task, loop, out, Ranks(), Log(lambda row: None), {})
    trainer.metrics_readback = MetricsReadback(deferred)
    rate = models[0].spec.out_rate
    return trainer, Recordings(voices(3, 1.0, rate), voices(2, 1.0, rate))


class HostReads(TorchDispatchMode):
    """Counts what a host would wait for on CUDA: values, and shapes that depend on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)
        if name in self.WAITS or by_mask:
            self.reads[name] += 1
        return func(*args, **(kwargs or {}))


def reads_of_a_step(trainer: Trainer, recordings: Recordings, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How often the third step reads a tensor's value, and whole tensors."""
    for _ in range(2):
        trainer.train_step(trainer.batch(recordings))
    batch, lists = trainer.batch(recordings), list[int]()
    real = torch.Tensor.tolist
    with monkeypatch.context() as patch, HostReads() as host:
        for name in ("tolist", "numpy", "cpu"):
            patch.setattr(torch.Tensor, name, lambda self: lists.append(self.numel()) or real(self))
        trainer.train_step(batch)
    return sum(host.reads.values()), len(lists)


@pytest.mark.parametrize("deferred", [True, False])
def test_a_step_reads_its_metrics_once_and_nothing_else(
    deferred: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, recordings, _ = separating(tmp_path, deferred)
    values, lists = reads_of_a_step(trainer, recordings, monkeypatch)
    assert lists == 1
    assert (values == 0) == deferred


def test_an_adversarial_step_reads_its_metrics_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads_of_a_step(*upsampling(tmp_path, deferred=True), monkeypatch) == (0, 1)


def test_deferred_steps_are_the_same_steps(tmp_path: Path) -> None:
    trainers = [separating(tmp_path, deferred) for deferred in (False, True)]
    terms: list[list[dict[str, float]]] = [[], []]
    for seen, (trainer, recordings, _) in zip(terms, trainers, strict=True):
        for _ in range(5):
            seen.append(trainer.train_step(trainer.batch(recordings)))
    prompt, late = (trainer for trainer, *_ in trainers)
    assert terms[1][0] == {}
    for one, other in zip(terms[0][:-1], terms[1][1:], strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    last = late.metrics_readback.flush()
    assert last is not None
    assert last.step == 4
    assert last.terms == pytest.approx(terms[0][-1], abs=1e-3)
    assert late.metrics_readback.flush() is None
    for states in ((prompt.model.state_dict(), late.model.state_dict()), (prompt.average, late.average)):
        for key, value in states[0].items():
            torch.testing.assert_close(states[1][key], value, atol=1e-5, rtol=0, msg=key)


def test_a_late_step_that_is_not_finite_changes_nothing_and_is_kept(tmp_path: Path) -> None:
    trainer, recordings, rows = separating(tmp_path, deferred=True)
    trainer.train_step(trainer.batch(recordings))
    states = (
        trainer.model.state_dict(),
        trainer.average,
        {"momentum": trainer.optimizer.state_dict()["state"][0]["momentum"]},
    )
    before = [{key: value.clone() for key, value in state.items()} for state in states]
    batch = trainer.batch(recordings)
    batch["input"][0, 0, 500] = float("nan")
    trainer.train_step(batch)
    for state, old in zip(states, before, strict=True):
        for key, value in state.items():
            assert torch.equal(value, old[key]), key
    assert not rows
    trainer.train_step(trainer.batch(recordings))  # which tells of the one before, and is a step as ever
    assert rows[-1]["step"] == 1
    assert torch.load(tmp_path / "nonfinite-1-rank0.pt", weights_only=True)["input"][0, 0, 500].isnan()
    assert not torch.equal(trainer.model.state_dict()["head.weight"], before[0]["head.weight"])
    with pytest.raises(TrainingError, match="10 in a row"):
        for _ in range(11):
            trainer.train_step(batch)


def test_the_metrics_of_the_last_step_are_read_at_the_end(tmp_path: Path) -> None:
    trainer, recordings, rows = separating(tmp_path, True, steps=2, learning_rate=0.0)
    real, calls = trainer.batch, list[int]()

    def batch(recordings: Recordings) -> dict[str, torch.Tensor]:
        one = real(recordings)
        calls.append(1)
        if len(calls) == 2:
            one["input"][0, 0, 500] = float("nan")
        return one

    trainer.batch = batch  # type: ignore[method-assign]
    trainer.run(recordings)
    assert [row["step"] for row in rows if row["event"] == "warning"] == [1]


def test_averages_move_by_their_weight_and_counts_are_copied() -> None:
    def state(value: float, count: int) -> dict[str, torch.Tensor]:
        return {"a": torch.full((3,), value), "n": torch.tensor(count), "b": torch.full((2, 2), -value)}

    for finite, expected in ((None, 0.25), (torch.tensor(True), 0.25), (torch.tensor(False), 0.0)):
        average = state(0.0, 1)
        WeightAverage(average, state(1.0, 7)).update(0.25, finite)
        assert average["a"].tolist() == [expected] * 3
        assert average["b"].tolist() == [[-expected] * 2] * 2
        assert int(average["n"]) == 7


@pytest.mark.parametrize(("finite", "expected"), [(None, 1.0), (torch.tensor(True), 2.0), (torch.tensor(False), 1.0)])
def test_running_statistics_are_taken_back(finite: torch.Tensor | None, expected: float) -> None:
    buffer = torch.full((2,), 2.0)
    restore_buffers([buffer], [torch.ones(2)], finite)
    assert buffer.tolist() == [expected] * 2


def test_a_packed_recipe_is_itself() -> None:
    values = {
        "flags": torch.rand(5, generator=generator()) < 0.5,
        "wide": torch.rand(3, 2, generator=generator(), dtype=torch.float64).T,
        "spread": torch.tensor([1.5]).expand(4, 3),
        "none": torch.zeros(0, dtype=torch.long),
        "count": torch.tensor(2**60 + 1),
        "level": torch.rand(3, generator=generator()),
    }
    for copies in (_unpack(_pack(values), values), upload_all(values, CPU)):
        assert copies.keys() == values.keys()
        for key, value in values.items():
            assert copies[key].dtype == value.dtype
            assert torch.equal(copies[key], value)
