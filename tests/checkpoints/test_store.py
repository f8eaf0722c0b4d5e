"""checkpoints/store.py and catalogue.py: the bundled models, round trips, and refused checkpoints."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from conftest import EXAMPLES, SMALL, denoiser, halves
from safetensors.torch import load_file, save_file

from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.errors import ModelError, OutputError
from audiosr_cli.models import Model, ModelSpec, build, make_config
from audiosr_cli.pipelines import SeparateOptions


def test_round_trip_in_half_precision(tmp_path: Path) -> None:
    model = build("wave_u_net", make_config("wave_u_net", SMALL["wave_u_net"]))
    store.save_model(model, tmp_path / "a.safetensors", {"minutes": 3})
    again = store.load_model(str(tmp_path / "a.safetensors"))
    assert (again.config, again.spec, again.training) == (model.config, model.spec, False)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value.half().float(), rtol=0, atol=0)
    metadata = catalogue.metadata(tmp_path / "a.safetensors")
    assert metadata["note"] == {"minutes": 3}
    assert metadata["spec"] == model.spec.as_dict()


def test_what_the_outputs_are_survives_a_round_trip(tmp_path: Path) -> None:
    store.save_model(denoiser(), tmp_path / "a.safetensors", {})
    again = store.load_model(str(tmp_path / "a.safetensors"))
    assert again.spec == denoiser().spec
    assert (again.spec.rest, again.spec.speakers, again.spec.sources) == (True, 1, 2)
    assert catalogue.speakers_of(catalogue.metadata(tmp_path / "a.safetensors")["spec"]) == 1


@pytest.mark.parametrize(("task", "rest"), [("speech-and-rest", True), ("separate", False), (None, False)])
def test_checkpoints_without_the_field_say_what_they_were_trained_for(
    tmp_path: Path, task: str | None, rest: bool
) -> None:
    spec, note = halves().spec.as_dict(), {} if task is None else {"training_task": task}
    del spec["rest"]
    rewrite(tmp_path / "a.safetensors", spec=spec, note=note)
    assert store.load_model(str(tmp_path / "a.safetensors")).spec.rest is rest


def test_only_two_sources_can_be_speech_and_the_rest(tmp_path: Path) -> None:
    spec = halves(sources=3).spec.as_dict() | {"rest": True}
    rewrite(tmp_path / "a.safetensors", halves(sources=3), spec=spec)
    with pytest.raises(ModelError, match=r"a\.safetensors: .*sources = 3: must be 2 with rest"):
        store.load_model(str(tmp_path / "a.safetensors"))


def rewrite(path: Path, model: Model | None = None, **metadata: Any) -> None:
    """Write a checkpoint with other ``metadata`` than the model's own."""
    content = store.serialise(model or halves(), {})
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] |= {key: json.dumps(value) for key, value in metadata.items()}
    packed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + content[8 + size :])


def test_round_trip_in_8_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("wave_u_net", make_config("wave_u_net", SMALL["wave_u_net"] | {"filters": 24}))
    store.save_model(model, tmp_path / "half.safetensors", {})
    store.save_model(model, tmp_path / "a.safetensors", {}, "int8")
    assert (tmp_path / "a.safetensors").stat().st_size < 0.6 * (tmp_path / "half.safetensors").stat().st_size
    again, large = store.load_model(str(tmp_path / "a.safetensors")).state_dict(), 0
    for key, value in model.state_dict().items():
        if value.ndim > 1 and value.numel() >= 4096:
            step = value.flatten(1).abs().amax(1) / 127
            assert ((again[key] - value).flatten(1).abs().amax(1) <= 0.501 * step).all()
            assert not torch.equal(again[key], value.half().float())
            large += 1
        else:
            torch.testing.assert_close(again[key], value.half().float(), rtol=0, atol=0)
    assert large > 2


@pytest.mark.parametrize("ratio", [1, 2, 4, 6])
def test_every_ratio_can_be_loaded(ratio: int, tmp_path: Path) -> None:
    model = build("audio_unet", make_config("audio_unet", SMALL["audio_unet"] | {"ratio": ratio}))
    store.save_model(model, tmp_path / "a.safetensors", {})
    again = store.load_model(str(tmp_path / "a.safetensors"))
    assert again(torch.zeros(1, 1, again.spec.window)).shape[-1] == 1024 * ratio


def test_default_and_unknown_names(small_weights: Path) -> None:
    assert catalogue.default_model("separate") == "wave_u_net"
    assert store.load_model("audio_unet").spec.task == "upsample"
    with pytest.raises(ModelError, match="bundled: wave_u_net, spectral_bwe"):
        store.load_model("sepformer")
    with pytest.raises(ModelError, match="cannot be read"):
        store.load_model("missing.safetensors")


def test_a_flipped_bit_is_detected(small_weights: Path) -> None:
    path = small_weights / "wave_u_net.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256"):
        store.load_model("wave_u_net")


def rewritten(path: Path, *, tensors: dict | None = None, **changed: object) -> str:
    """Copy a checkpoint with other tensors or metadata."""
    values = catalogue.metadata(path) | changed
    out = path.with_name("changed.safetensors")
    save_file(tensors or load_file(path), out, {key: json.dumps(value) for key, value in values.items()})
    return str(out)


def test_damaged_and_foreign_checkpoints_are_refused(small_weights: Path, tmp_path: Path) -> None:
    path = small_weights / "audio_unet.safetensors"
    tensors = load_file(path)
    first = next(iter(tensors))
    broken = tensors | {first: torch.full_like(tensors[first], float("nan"))}
    with pytest.raises(ModelError, match="not finite"):
        store.load_model(rewritten(path, tensors=broken))
    with pytest.raises(ModelError, match="unknown architecture 'other'"):
        store.load_model(rewritten(path, model="other"))
    with pytest.raises(ModelError, match="format 99"):
        store.load_model(rewritten(path, format=99))
    with pytest.raises(ModelError, match="do not fit"):
        store.load_model(rewritten(path, tensors={"other": torch.zeros(2)}))

    def header(content: bytes) -> bytes:
        return struct.pack("<Q", len(content)) + content

    deep = dict.fromkeys(("format", "model", "spec", "note"), "1") | {"config": '{"a":' * 500 + "1" + "}" * 500}
    for name, content, message in (
        ("truncated", path.read_bytes()[:-50], "cannot be read"),
        ("empty", b"", "not an audiosr checkpoint"),
        ("pickle", b"\x80\x04\x95" + bytes(100), "not an audiosr checkpoint"),
        ("hostile", struct.pack("<Q", 2**40) + b"{}", "claims"),
        ("deep", header(b"[" * 100_000), "not an audiosr checkpoint"),
        ("deep config", header(json.dumps({"__metadata__": deep}).encode()), "not an audiosr checkpoint"),
        ("plain", struct.pack("<Q", 2) + b"{}", "not an audiosr checkpoint"),
    ):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=message):
            store.load_model(str(tmp_path / f"{name}.safetensors"))


def test_bundled_weights_load_and_match_their_metadata() -> None:
    entries = catalogue.entries()
    assert {task for entry in entries.values() for task in entry["tasks"]} >= {"separate", "upsample"}
    total = 0
    for name, entry in entries.items():
        model = store.load_model(name)
        path = catalogue.folder() / entry["file"]
        values = catalogue.metadata(path)
        assert ModelSpec(**values["spec"]) == model.spec  # older ones lack fields that have defaults
        assert values["note"]["data"]
        total += path.stat().st_size
    assert total < 95e6


@pytest.mark.parametrize("name", [name for name, entry in catalogue.entries().items() if "separate" in entry["tasks"]])
def test_bundled_separators_keep_level_and_polarity(name: str) -> None:
    mix, rate = soundfile.read(EXAMPLES / "two_speakers.wav", dtype="float32")
    references = [soundfile.read(EXAMPLES / f"two_speakers_reference{i}.flac", dtype="float32")[0] for i in (1, 2)]
    speakers = store.load_model(name).spec.speakers
    output = SeparateOptions(speakers, name).pipeline().array(mix, rate)[:, 0]
    for reference in references:
        gain = output @ reference / (reference @ reference)
        assert 0.5 < max(gain) < 1.5
        assert min(gain) > -0.1
    assert 0.6 < (output.sum(0) @ mix) / (mix @ mix) < 1.2


def test_every_bundled_model_has_a_card() -> None:
    for name in catalogue.entries():
        assert (EXAMPLES.parent / "docs" / "models" / f"{name}.md").is_file()


def test_saved_files_have_default_permissions_and_keep_large_integers(tmp_path: Path) -> None:
    model = build("speaker_encoder", make_config("speaker_encoder", {"width": 8}))
    path = tmp_path / "a.safetensors"
    store.save_model(model, path, {})
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    model.norms[0].num_batches_tracked.fill_(100_000)  # beyond fp16
    store.save_model(model, path, {})
    assert store.load_model(str(path)).state_dict()["norms.0.num_batches_tracked"] == 100_000
    with pytest.raises(OutputError, match="cannot be written"):
        store.save_model(model, tmp_path / "nowhere" / "a.safetensors", {})


def test_checkpoints_of_format_1_are_read_with_todays_names() -> None:
    """Some bundled ones have that format, in which architectures, tasks and fields have other names."""
    metadata = {
        name: catalogue.metadata(catalogue.folder() / catalogue.entries()[name]["file"])
        for name in ("audiosr_small", "band_masks", "spectral_bwe")
    }
    assert {entry["format"] for entry in metadata.values()} == {1}
    assert metadata["audiosr_small"]["spec"]["name"] == "audiosr_small"
    assert metadata["audiosr_small"]["spec"]["uses_position"]
    assert metadata["spectral_bwe"]["spec"]["uses_cutoff"]
    assert metadata["band_masks"]["spec"]["cutoff_hz"] > 0
    assert not [key for entry in metadata.values() for key in entry["spec"] if "edge" in key or key == "placed"]


def test_a_speaker_encoder_of_format_1_is_read_with_todays_names(tmp_path: Path) -> None:
    path = tmp_path / "voice.safetensors"
    network = build("speaker_encoder", make_config("speaker_encoder", {"width": 8, "size": 4}))
    config = {"sample_rate": 8000, "mels": 40, "width": 8, "dilations": [1, 2, 3, 4], "size": 4, "name": "voice"}
    spec = {"name": "voice", "task": "voice", "in_rate": 8000, "ratio": 1, "sources": 1, "channels": 1}
    spec |= {"window": 16000, "context": 0, "hop": 16000, "inputs": 1, "edge_hz": 0.0}
    parts = {"format": 1, "model": "voice", "config": config, "spec": spec, "note": {}}
    save_file(network.state_dict(), path, {key: json.dumps(value) for key, value in parts.items()})
    metadata, model = catalogue.metadata(path), store.load_model(str(path))
    assert (metadata["model"], metadata["spec"]["task"], model.spec.task) == ("speaker_encoder", "embed", "embed")
    assert model.spec.name == "speaker_encoder"


@pytest.mark.parametrize("model", ["nobody", "a" * 5000, "a\0b"])
def test_a_name_that_is_no_model_is_a_model_error(model: str) -> None:
    with pytest.raises(ModelError, match="no model"):
        catalogue.find(model)
