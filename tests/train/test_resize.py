"""train/resize.py: a grown network computes what it did, all of it learns, and narrowing undoes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from corpora import run, voices
from torch import Tensor

from audiosr_cli.checkpoints import store
from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.models.spectral_unet import SpectralUNet, SpectralUNetConfig
from audiosr_cli.pipelines import SeparateOptions
from audiosr_cli.train import resize
from audiosr_cli.train.losses import METRICS, pit
from audiosr_cli.train.resize import cut_bins, grow, importance, narrow, speech_and_rest
from audiosr_cli.train.tasks import Recordings, Separation

CONFIG = SpectralUNetConfig(
    sample_rate=8000,
    n_fft=128,
    hop_length=64,
    fine=32,
    group=4,
    widths=(8, 16, 16),
    time_strides=(2, 1),
    hidden=16,
    layers=1,
    heads=2,
    context=64,
    core=1024,
    overlap=0,
)
LARGER: list[dict[str, Any]] = [
    {"widths": (16, 16, 16)},
    {"widths": (8, 24, 16)},
    {"widths": (8, 16, 32)},
    {"layers": 3},
    {"hidden": 24, "heads": 3},
    {"widths": (16, 32, 24), "layers": 2, "hidden": 40, "heads": 5, "sources": 3},
]


def trained(config: SpectralUNetConfig = CONFIG) -> SpectralUNet:
    """A network no weight of which is still where it started."""
    torch.manual_seed(1)
    model = SpectralUNet(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def mixtures(config: SpectralUNetConfig, length: int = 1024) -> Tensor:
    return 0.1 * torch.randn(2, 1, length + 2 * config.context, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def difference(old: SpectralUNet, new: SpectralUNet, training: bool) -> float:
    """The largest difference between the outputs that both have, relative to the largest output."""
    x = mixtures(old.config, old.spec.in_rate // 2)
    before, after = old.train(training)(x), new.train(training)(x)
    return float((after[:, : before.shape[1]] - before).abs().max() / before.abs().max())


@pytest.mark.parametrize("changes", LARGER, ids=str)
def test_a_grown_network_computes_the_same(changes: dict[str, Any]) -> None:
    old = trained()
    new = grow(old, replace(CONFIG, **changes))
    assert new.config == replace(CONFIG, **changes)
    for training in (True, False):
        assert difference(old, new, training) < 2e-6


def test_wider_layers_keep_the_output_for_quiet_input() -> None:
    """A stream of features so quiet that the norms' eps decides their output."""
    old = trained()
    with torch.no_grad():
        old.sequence.enter.weight.mul_(1e-4)
        old.sequence.layers[0].out.weight.mul_(1e-4)
    assert difference(old, grow(old, replace(CONFIG, hidden=32, heads=4)), training=True) < 2e-6


@pytest.mark.parametrize("name", ["spectral2", "spectral2_narrow", "spectral3"])
def test_a_bundled_separator_grows(name: str) -> None:
    old = store.load_model(name)
    assert isinstance(old, SpectralUNet)
    config = replace(old.config, widths=(48, 96, 192, 256), layers=5, context=512)
    small = SpectralUNet(replace(old.config, context=512))
    small.load_state_dict(old.state_dict())
    assert difference(small, grow(old, config), training=False) < 2e-6


def test_new_sources_are_silent() -> None:
    new = grow(trained(), replace(CONFIG, sources=4))
    with torch.no_grad():
        assert new.train()(mixtures(CONFIG))[:, 2:].abs().max() == 0
        assert new.eval()(mixtures(CONFIG))[:, 2:].abs().max() < 1e-9


@pytest.mark.parametrize("changes", LARGER, ids=str)
def test_every_new_weight_gets_a_gradient(changes: dict[str, Any]) -> None:
    new = grow(trained(), replace(CONFIG, **changes)).train()
    optimizer = torch.optim.SGD(new.parameters(), 1e-3)
    for _ in range(2):  # what starts at zero hides the weights behind it for one step
        new.zero_grad()
        out = new(mixtures(CONFIG)).flatten(2)
        (out - torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).square().sum().backward()
        optimizer.step()
    for key, weight in new.named_parameters():
        assert weight.grad is not None
        assert (weight.grad != 0).double().mean() > 0.99, key


def test_new_features_of_the_stream_learn_at_once_and_differently() -> None:
    """The statistics of the norms alone would give all of them one gradient."""
    new = grow(trained(), replace(CONFIG, hidden=24, heads=3)).train()
    new(mixtures(CONFIG))[:, 0].square().sum().backward()
    for writer in (new.sequence.enter, new.sequence.layers[0].out, new.sequence.layers[0].narrow):
        assert not writer.weight[16:].any()
        gradient = writer.weight.grad[16:]
        assert (gradient[0] - gradient[1]).norm() > 0.1 * gradient[0].norm() > 0


@pytest.mark.parametrize("consistency", ["use", "always"])
@pytest.mark.parametrize("loss", sorted(METRICS))
def test_new_silent_sources_get_gradients_from_every_allowed_loss(loss: str, consistency: Any) -> None:
    from audiosr_cli.train.warm_start import check_silent_sources

    config = replace(CONFIG, sources=3, consistency=consistency)
    new = grow(trained(), config).train()
    target = 0.1 * torch.randn(2, 3, 1024, generator=torch.Generator().manual_seed(3))
    estimate = new(torch.nn.functional.pad(target.sum(1, keepdim=True), (64, 64))).flatten(2)
    pit(estimate, target, METRICS[loss]).backward()
    assert new.head.weight.grad is not None
    gradient = new.head.weight.grad[4:].norm()
    task = Separation(config.spec, 2, 0.2, loss=loss)  # type: ignore[arg-type]
    if gradient > 1e-3:
        check_silent_sources(task, config)
    else:
        with pytest.raises(UsageError, match="stay silent; use loss = 'si_snr_and_level'"):
            check_silent_sources(task, config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (8, 8, 16)}, r"widths = \[8, 8, 16\]: narrower than .* \[8, 16, 16\]; .*tools/narrow.py"),
        ({"layers": 0 + 1, "sources": 2, "hidden": 8, "heads": 1}, "hidden = 8: the trained network has 16"),
        ({"hidden": 32}, r"hidden = 32 with heads = 2: .* 8 features each; use hidden = 8 \* heads"),
        ({"heads": 4}, "heads = 4"),
        ({"fine": 64}, "fine = 64: the trained network has 32"),
        ({"widths": (8, 16), "time_strides": (2,)}, "time_strides"),
    ],
    ids=str,
)
def test_impossible_growth_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        grow(trained(), replace(CONFIG, **changes))


def test_fewer_layers_and_sources_are_refused() -> None:
    large = trained(replace(CONFIG, layers=2, sources=3))
    for name, config in (("layers", replace(large.config, layers=1)), ("sources", replace(large.config, sources=2))):
        with pytest.raises(ModelError, match=f"^{name} = {getattr(config, name)}: the trained network has"):
            grow(large, config)


def test_a_level_without_whole_norm_groups_cannot_grow() -> None:
    small = trained(replace(CONFIG, widths=(4, 16, 16)))
    with pytest.raises(ModelError, match="only multiples of 8"):
        grow(small, CONFIG)


def test_narrowing_undoes_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens to new channels yet, so they matter least."""
    monkeypatch.setattr(resize, "_BATCHES", 2)
    old = trained(replace(CONFIG, widths=(16, 24, 16)))
    with torch.no_grad():
        old.encode[0].norms[0].weight[8:] = old.encode[0].norms[0].bias[8:] = 0  # a group that says nothing
    wide = grow(old, replace(old.config, widths=(24, 40, 32)))
    scores = importance(wide, Separation(old.spec, 2, 0.2), Recordings(voices(3), voices(2)))
    for key, score in scores.items():
        before = old.state_dict()[f"{key}.weight"].numel() // 8
        assert (score[:before] > 0).tolist() == [True, key != "encode.0.norms.0", True][:before]
        assert score[before:].max() == 0
    wide.spec = replace(wide.spec, rest=True)
    again = narrow(wide, old.config, scores)
    assert again.spec == replace(old.spec, rest=True)
    for key, value in again.state_dict().items():
        assert torch.equal(value, old.state_dict()[key]), key


def test_the_channels_stay_that_matter_most() -> None:
    """The second of two groups in maps that are added to each other, the first inside blocks."""
    old = trained(replace(CONFIG, widths=(16, 16, 16)))
    keys = {key.removesuffix(".bias") for key in old.state_dict() if key.endswith("bias") and "head" not in key}
    scores = {key: torch.tensor([1.0, 0.0] if key.endswith("norms.0") else [0.0, 1.0]) for key in keys}
    new = narrow(old, replace(CONFIG, widths=(8, 8, 8)), scores)
    first, second, before, after = slice(8), slice(8, 16), old.state_dict(), new.state_dict()
    taken = {
        "enter.weight": (second,),
        "enter_norm.bias": (second,),
        "encode.1.convs.0.weight": (first, second),
        "encode.1.convs.1.weight": (second, first),
        "encode.1.norms.0.weight": (first,),
        "decode.0.norms.1.weight": (second,),
        "before.convs.0.weight": (first, second),
        "down.0.weight": (second, second),
        "up.1.weight": (second, second),
        "head.weight": (slice(None), second),
        "head.bias": (slice(None),),
    }
    for key, parts in taken.items():
        assert torch.equal(after[key], before[key][parts]), key
    rows = CONFIG.rows >> 2
    vector = before["sequence.enter.weight"].unflatten(1, (rows, 16))
    assert torch.equal(after["sequence.enter.weight"], vector[:, :, second].flatten(1))
    vector = before["sequence.leave.weight"].unflatten(0, (rows, 16))
    assert torch.equal(after["sequence.leave.weight"], vector[:, second].flatten(0, 1))


def test_a_lower_rate_keeps_the_lowest_bins() -> None:
    config = replace(CONFIG, n_fft=64, hop_length=32, sample_rate=4000, widths=(8, 8, 8))
    old = trained(replace(CONFIG, widths=(8, 16, 8)))
    new = cut_bins(old, config)
    assert new.config == replace(config, widths=(8, 16, 8))
    assert cut_bins(speech_and_rest(old), config).spec == replace(new.spec, rest=True)
    rows = config.rows >> 2
    assert torch.equal(
        new.state_dict()["sequence.enter.weight"], old.state_dict()["sequence.enter.weight"][:, : rows * 8]
    )
    for changes in ({"hidden": 32}, {"widths": (16, 8, 8)}):
        with pytest.raises(ModelError, match=next(iter(changes))):
            cut_bins(old, replace(config, **changes))


@pytest.mark.parametrize("sources", [2, 3])
def test_speech_is_the_sum_of_the_speakers_and_the_rest_the_residual(sources: int) -> None:
    old = trained(replace(CONFIG, sources=sources))
    new, x = speech_and_rest(old), mixtures(CONFIG)
    with torch.no_grad():
        spectrum = torch.fft.rfft(x)
        spectrum[..., -200:] = 0  # the Nyquist bin has no mask
        x = torch.fft.irfft(spectrum, x.shape[-1])
        speakers, parts = old.train()(x), new.train()(x)
        inner = x[..., 64:-64]
        scale = speakers.abs().max()
        assert (parts[:, 0] - speakers.sum(1)).abs().max() < 1e-6 * scale
        assert (parts[:, 1] - (inner - speakers.sum(1))).abs().max() < 1e-2 * scale
        used = new.eval()(x)
        assert (used.sum(1) - inner).abs().max() < 1e-6
        assert (used - parts).abs().max() < 1e-2 * scale
    assert new.spec == replace(old.spec, sources=2, rest=True)


RUN = """
[model]
architecture = "spectral_unet"
name = "tiny"
sample_rate = 8000
n_fft = 128
hop_length = 64
fine = 64
widths = [8, 16]
time_strides = [2]
hidden = 16
layers = 1
heads = 2
context = 64
core = 1024
overlap = 0
[data]
train = ["train"]
valid = ["valid"]
[task]
name = "separate"
batch_size = 2
crop_s = 0.256
[loop]
steps = 2
precision = "fp32"
"""


def test_training_grows_its_initial_weights(speakers: Path) -> None:
    best, rows = run(speakers, RUN)
    score = max(row["SI-SDRi (dB)"] for row in rows if row["event"] == "valid")
    assert not [row for row in rows if row["event"] == "grown"]
    larger = RUN.replace("[8, 16]", "[16, 24]").replace("layers = 1", "layers = 2").replace("steps = 2", "steps = 1")
    grown, rows = run(speakers, larger, "larger", init=str(best))
    event = next(row for row in rows if row["event"] == "grown")
    assert event["init"] == str(best)
    sizes = [sum(w.numel() for w in store.load_model(str(path)).parameters()) for path in (best, grown)]
    assert [event["parameters_before"], event["parameters"]] == sizes
    first = next(row for row in rows if row["event"] == "valid")
    assert first["SI-SDRi (dB)"] == pytest.approx(score, abs=1e-3)
    with pytest.raises(ModelError, match=r"--init .*narrower than the trained network.*tools/narrow.py"):
        run(speakers, RUN, "third", init=str(grown))


SPEECH = (
    RUN.replace('name = "separate"', 'name = "speech-and-rest"').replace("[data]", '[data]\nnoise = ["valid"]')
    + "[task.mixing]\nnoise_prob = 1.0\n"
).replace('noise = ["valid"]', 'noise = ["valid"]\nvalid_noise = ["train"]')


def test_a_separator_becomes_speech_and_rest_and_such_a_network_stays_one(speakers: Path) -> None:
    from audiosr_cli.models import build
    from audiosr_cli.train.config import read_config
    from audiosr_cli.train.log import Log
    from audiosr_cli.train.warm_start import warm_start

    best, _ = run(speakers, RUN.replace("steps = 2", "steps = 1"))
    separator = store.load_model(str(best))
    assert isinstance(separator, SpectralUNet)
    wider = SPEECH.replace("[8, 16]", "[16, 24]")
    (speakers / "speech.toml").write_text(wider)
    config, events = read_config(speakers / "speech.toml"), list[dict[str, Any]]()
    first = build("spectral_unet", config.training_model)
    warm_start(first, config.task, str(best), Log(events.append))
    assert [event["event"] for event in events] == ["grown"]
    assert isinstance(first, SpectralUNet)
    expected = speech_and_rest(separator)
    assert difference(expected, first, training=True) < 2e-6

    trained, rows = run(speakers, wider, "speech", init=str(best))
    assert next(row for row in rows if row["event"] == "valid")["SI-SDRi of speech in noise (dB)"] > -50
    again = build("spectral_unet", config.training_model)
    warm_start(again, config.task, str(trained), Log(events.append))
    assert [event["event"] for event in events] == ["grown"]  # not again
    for key, value in store.load_model(str(trained)).state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key

    with pytest.raises(UsageError, match="--speakers 2: tiny separates speech from noise; use --speakers 1"):
        SeparateOptions(2, str(trained)).pipeline()
    pipeline = SeparateOptions(1, str(trained), residual=True).pipeline()
    assert pipeline.outputs == ("speech", "residual")
    assert pipeline.array(torch.randn(2, 999).numpy(), 8000).shape == (2, 2, 999)
