"""train/pack_audio.py: the order of recordings, and the codecs that keep their bandwidth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiosr_cli.audio.small_files import Codec, bandwidth, encode, probe
from audiosr_cli.train.pack_audio import LADDER, Source, codec_for, in_order


def one(name: str, size: int, speaker: str, is_noise: bool = False) -> Source:
    return Source(Path(name), name, size, 1.0, 16000, 16000, 8e3, 0.0, speaker, name[0], is_noise)


def order_of(sources: list[Source], room: float) -> list[str]:
    return [source.relative for source in in_order(sources, {s: float(s.size) for s in sources}, room)]


def test_short_recordings_of_one_speaker_do_not_precede_other_speakers() -> None:
    sources = [one(f"va{k}", 1 + k, "a") for k in range(4)] + [one(f"vb{k}", 100, "b") for k in range(2)]
    sources += [one(f"vc{k}", 50, "c") for k in range(3)]
    assert order_of(sources, 1e6) == ["va0", "vc0", "vb0", "va1", "va2", "va3", "vc1", "vc2", "vb1"]


def test_noise_has_its_share_of_the_room() -> None:
    voices = [one(f"v{i}{k}", 10 + k, f"p{i}") for i in range(5) for k in range(3)]
    order = order_of(voices + [one(f"n{i}", 10, "n", is_noise=True) for i in range(5)], 500)
    assert set(order[:2]) == {"v00", "n0"}
    assert order[2:7] == ["n1", "v10", "v20", "v30", "v40"]
    assert order[7:12] == ["v01", "v11", "v21", "v31", "v41"]
    assert order[-3:] == ["n2", "n3", "n4"]


def test_the_bandwidth_of_codecs(tmp_path: Path) -> None:
    assert bandwidth(Codec("opus", 24_000), 16000) > 7800
    assert 15_000 < bandwidth(Codec("vorbis", 0.3), 48000) < 19_000 < bandwidth(Codec("vorbis", 0.5), 48000)
    wave = np.ones(70_000, np.float32) * 1.5
    assert encode(tmp_path / "a.ogg", wave, 48000, Codec("vorbis", 0.3)) == (tmp_path / "a.ogg").stat().st_size
    assert probe(tmp_path / "a.ogg") == (48000, 70_000 / 48000)


def test_encoding_keeps_the_bandwidth_that_a_config_needs() -> None:
    source = Source(Path("a"), "a", 1, 1.0, 48000, 48000, 22_000.0, 20_000.0, "p", "a")
    codec = codec_for(source, len(LADDER) - 1)
    assert codec.name == "vorbis"
    assert bandwidth(codec, 48000) >= 20_000
