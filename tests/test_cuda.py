"""What only a card can show: that it computes what the CPU does, and that no training step waits for it.

Together under half a minute on an H100. ``pytest -m cuda`` runs these and what other files have of the kind.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BWE, SMALL
from corpora import RUN, generator, run, voices

from audiosr_cli.checkpoints import store
from audiosr_cli.dsp.spectra import irfft
from audiosr_cli.models import build, make_config
from audiosr_cli.models.diffusion import ddim
from audiosr_cli.runtime.device import float32_products
from audiosr_cli.train import bandlimit, checkpoint
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.optimizers import Muon, orthogonalise
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Embedding, Recordings, Separation, Upsampling
from audiosr_cli.train.tasks.upsampling import UpsamplingLossWeights
from audiosr_cli.train.transfer import upload_all

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

SPECTRAL = {
    "sample_rate": 8000,
    "n_fft": 128,
    "hop_length": 64,
    "fine": 64,
    "widths": [16, 32],
    "time_strides": [2],
    "hidden": 32,
    "layers": 2,
    "heads": 2,
    "context": 0,
    "core": 1024,
    "overlap": 0,
}
Make = Callable[..., Trainer]


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Without TF32, whose 10 bits would hide faults."""
    with float32_products("cuda", exact=True):
        yield


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.cpu() - expected.cpu()).norm() / expected.cpu().norm())


@pytest.mark.parametrize("length", [256, 960, 1024, 8192, 16384, 65520, 131072, 65535])
def test_irfft_ignores_imaginary_parts_at_dc_and_nyquist(length: int) -> None:
    spectrum = torch.randn(3, length // 2 + 1, dtype=torch.complex64, generator=generator())
    assert relative(irfft(spectrum.to(CUDA), length), torch.fft.irfft(spectrum, length)) < 1e-5
    gradients = []
    for device in (CPU, CUDA):
        leaf = spectrum.to(device).detach().clone().requires_grad_()
        irfft(leaf, length).square().sum().backward()
        gradients.append(leaf.grad)
    assert relative(gradients[1], gradients[0]) < 1e-5


@pytest.mark.parametrize("name", ["spectral2", "spectral_bwe", "band_masks", "speaker_encoder", "audio_unet"])
def test_bundled_models_match_the_cpu(name: str) -> None:
    model = store.load_model(name)
    spec = model.spec
    x = 0.1 * torch.randn(1, spec.inputs * spec.channels, spec.window, generator=generator())
    with torch.inference_mode():
        expected = model(x)
        model.to(CUDA)
        assert relative(model(x.to(CUDA)), expected) < 1e-3
        with torch.autocast("cuda", torch.bfloat16):
            assert relative(model(x.to(CUDA)).float(), expected) < 0.1


def test_diffusion_runs_on_the_card() -> None:
    start = torch.randn(2, 3, 4, generator=generator())
    on_cpu, on_cuda = (
        ddim(lambda x, step: 0.5 * x * (step / 1000).view(-1, 1, 1), lambda _, at=device: start.to(at), 4, eta=0.3)
        for device in (CPU, CUDA)
    )
    assert relative(on_cuda, on_cpu) < 1e-5


def separating(out: Path, device: torch.device, **loop: Any) -> tuple[Trainer, Recordings]:
    config = make_config("spectral_unet", SPECTRAL)
    task = Separation(config.spec, 4, 0.512)
    return make_trainer("spectral_unet", config, task, out, device, loop)


def upsampling(out: Path, device: torch.device, **loop: Any) -> tuple[Trainer, Recordings]:
    config = make_config("spectral_bwe", BWE | {"margin": 0})
    task = Upsampling(config.spec, 4, 0.2, loss_weights=UpsamplingLossWeights(mel=1.0))
    return make_trainer("spectral_bwe", config, task, out, device, loop)


def adversarial(out: Path, device: torch.device, **loop: Any) -> tuple[Trainer, Recordings]:
    config = make_config("audio_unet", SMALL["audio_unet"])
    task = Upsampling(config.spec, 2, 0.1, loss_weights=UpsamplingLossWeights(adversarial=0.1, feature_matching=1.0))
    return make_trainer("audio_unet", config, task, out, device, loop)


def speakers_apart(out: Path, device: torch.device, **loop: Any) -> tuple[Trainer, Recordings]:
    config = make_config("speaker_encoder", SMALL["speaker_encoder"])
    return make_trainer("speaker_encoder", config, Embedding(config.spec, 3, 0.3), out, device, loop)


def make_trainer(
    name: str, config: Any, task: Any, out: Path, device: torch.device, loop: dict[str, Any]
) -> tuple[Trainer, Recordings]:
    torch.manual_seed(0)
    model, rate = build(name, config), config.spec.out_rate
    recordings = Recordings(voices(3, 2.0, rate).to(device), voices(3, 2.0, rate).to(device))
    settings = {"precision": "fp32", "optimizer": "muon", "ema": 0.9, "warmup_steps": 1} | loop
    log = Log(lambda row: None)
    trainer = Trainer(
        model, copy.deepcopy(model), task, LoopConfig(**settings), out, Ranks(device=device), log, {}, "cuda"
    )
    trainer.model.train()
    return trainer, recordings


TASKS = {"separate": separating, "upsample": upsampling, "adversarial": adversarial, "embed": speakers_apart}


@pytest.mark.parametrize("task", ["separate", "upsample", "embed"])
def test_batches_and_steps_match_the_cpu(task: str, tmp_path: Path) -> None:
    terms = []
    batches, models = [], []
    for device in (CPU, CUDA):
        trainer, recordings = TASKS[task](tmp_path, device)
        batches.append(trainer.batch(recordings))
        seen = [trainer.train_step(trainer.batch(recordings)) for _ in range(3)]
        due = trainer.metrics_readback.flush()
        terms.append([one for one in [*seen, due.terms if due else {}] if one])
        models.append(torch.cat([p.detach().flatten().cpu() for p in trainer.model.parameters()]))
    for key, value in batches[0].items():
        assert batches[1][key].device.type == "cuda"
        assert relative(batches[1][key], value) < 1e-4, key
    assert len(terms[0]) == len(terms[1]) == 3
    for one, other in zip(*terms, strict=True):
        assert one == pytest.approx(other, abs=0.02, rel=0.02)
    assert relative(models[1], models[0]) < 0.02


@contextmanager
def no_waits() -> Iterator[None]:
    """Raise RuntimeError where the host waits for the card, as far as torch can tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_waits_are_noticed() -> None:
    with no_waits(), pytest.raises(RuntimeError, match="synchroniz"):
        bool(torch.ones((), device=CUDA))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("task", sorted(TASKS))
def test_no_step_waits_for_the_card(task: str, precision: str, tmp_path: Path) -> None:
    trainer, recordings = TASKS[task](tmp_path, CUDA, precision=precision)
    for _ in range(3):  # constants are trainer once, libraries loaded
        trainer.train_step(trainer.batch(recordings))
    with no_waits():
        for _ in range(3):
            terms = trainer.train_step(trainer.batch(recordings))
    assert terms
    assert all(abs(value) < 1e6 for value in terms.values())


def test_uploads_are_complete() -> None:
    values = {"flag": torch.tensor([True, False, True]), "wide": torch.rand(2, 3, generator=generator()).double().T}
    for _ in range(50):  # pinned memory is used again and again
        values["at"] = torch.randint(2**60, (5,), generator=generator())
        copies = upload_all(values, CUDA)
        assert all(torch.equal(copies[key].cpu(), value) for key, value in values.items())


@pytest.mark.parametrize("task", ["separate", "adversarial"])
def test_a_gradient_that_is_not_finite_changes_nothing(task: str, tmp_path: Path) -> None:
    trainer, recordings = TASKS[task](tmp_path, CUDA)
    trainer.train_step(trainer.batch(recordings))
    before = copy.deepcopy((trainer.model.state_dict(), trainer.average, trainer.optimizer.state_dict()["state"]))
    batch = trainer.batch(recordings)
    batch["input"][0, 0, 500] = float("nan")
    trainer.train_step(batch)
    for state, old in zip((trainer.model.state_dict(), trainer.average), before[:2], strict=True):
        assert all(torch.equal(value, old[key]) for key, value in state.items())
    for index, state in trainer.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, before[2][index][key]) for key, value in state.items())
    assert not list(tmp_path.glob("nonfinite-*"))
    trainer.train_step(trainer.batch(recordings))
    assert [path.name for path in tmp_path.glob("nonfinite-*")] == ["nonfinite-1-rank0.pt"]


def test_stacked_muon_on_the_card_is_muon_on_the_cpu() -> None:
    shapes = [(24, 16, 3), (24, 16, 3), (32, 16, 3, 3), (200, 210), (200, 210), (210, 200)]
    sides = []
    for device in (CPU, CUDA):
        parameters = [
            torch.nn.Parameter(torch.randn(shape, generator=generator(i)).to(device)) for i, shape in enumerate(shapes)
        ]
        rest = torch.nn.Parameter(torch.ones(7, device=device))
        optimizer = Muon(parameters, [rest], 0.01, 0.1, (0.9, 0.98))
        assert optimizer.stacked == (device.type == "cuda")
        for step in range(3):
            for i, p in enumerate([*parameters, rest]):
                p.grad = torch.randn(p.shape, generator=generator(100 * step + i)).to(device)
            optimizer.step()
        sides.append([p.detach() for p in [*parameters, rest]])
    for one, other in zip(*sides, strict=True):
        assert (one - other.cpu()).abs().max() < 1e-4
    matrix = torch.randn(2, 64, 576, generator=generator())
    assert relative(orthogonalise(matrix.to(CUDA), bf16=True), orthogonalise(matrix)) < 0.06


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(("before", "after"), [(CUDA, CUDA), (CPU, CUDA), (CUDA, CPU)])
def test_a_run_resumes_on_either_device(
    before: torch.device, after: torch.device, optimizer: str, tmp_path: Path
) -> None:
    trainer, recordings = separating(tmp_path, before, optimizer=optimizer)
    for _ in range(3):
        trainer.train_step(trainer.batch(recordings))
    trainer.save()
    other, same = separating(tmp_path, after, optimizer=optimizer)
    recordings_of = {after.type: same, before.type: recordings}
    other.load()
    assert other.progress.step == 3
    for key, value in trainer.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[key].cpu(), value.cpu())
    flat = []
    for one in (trainer, other):
        one.train_step(one.batch(recordings_of[one.ranks.device.type]))
        flat.append(torch.cat([p.detach().flatten().cpu() for p in one.model.parameters()]))
    assert relative(flat[1], flat[0]) < 0.02


def test_a_whole_run(speakers: Path) -> None:
    text = RUN.replace("minutes = 0.05", "steps = 30").replace('"fp32"', '"bf16"') + 'optimizer = "muon"\nema = 0.9\n'
    best, rows = run(speakers, text, device="cuda")
    assert store.load_model(str(best)).spec.name == "tiny"
    assert checkpoint.load(speakers / "out")[0]["step"] == 30
    assert sum(row["event"] == "step" for row in rows) == 29  # each is read a step later
    run(speakers, text.replace("steps = 30", "steps = 40"), device="cuda", resume=True)
    assert checkpoint.load(speakers / "out")[0]["step"] == 40


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_layout_is_the_configs(channels_last: bool, tmp_path: Path) -> None:
    trainer, recordings = separating(tmp_path, CUDA, channels_last=channels_last)
    kernel = next(p for p in trainer.model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    assert kernel.is_contiguous(memory_format=torch.channels_last) == channels_last
    trainer.train_step(trainer.batch(recordings))
    due = trainer.metrics_readback.flush()
    assert due is not None
    assert due.finite


def test_band_limiting_is_that_of_the_cpu() -> None:
    waves = torch.randn(16, 16384, generator=generator())
    params = bandlimit.draw(bandlimit.Degradation(), 16, generator())
    on_cpu, on_cuda = (bandlimit.band_limit(waves.to(device), params, 48000) for device in (CPU, CUDA))
    assert relative(on_cuda, on_cpu) < 1e-4
