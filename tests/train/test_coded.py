"""train/coded.py: copies lie where their recordings do, are made once, and reach inputs but not targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise
from corpora import corpus_of, generator, voices

from audiosr_cli.errors import UsageError
from audiosr_cli.models import make_config
from audiosr_cli.train import coded
from audiosr_cli.train.bandlimit import Degradation
from audiosr_cli.train.coded import CodedCopies, load_coded, resemblance_hz
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Recordings, Upsampling

pytest.importorskip("av")
EVERY = CodedCopies(share=1.0, codecs=("mulaw",))


def corpus(count: int = 3) -> Corpus:
    return corpus_of([noise(36000 + 1000 * k, seed=k)[0] for k in range(count)], list(range(count)), 48000)


def test_copies_are_as_long_and_narrower(tmp_path: Path) -> None:
    """Of noise, 8 kHz mu-law keeps 4 kHz."""
    plain = corpus()
    copies = load_coded(plain, EVERY, tmp_path)
    assert torch.equal(copies.lengths, plain.lengths) and copies.names == plain.names
    for k in range(3):
        start, length = int(copies.starts[k]), int(copies.lengths[k])
        copy = copies.samples[start : start + length].float()
        original = plain.samples[int(plain.starts[k]) :][:length].float()
        spectra = [torch.fft.rfft(x)[: length * 3500 // 48000] for x in (copy, original)]
        cosine = (spectra[0] * spectra[1].conj()).real.sum() / (spectra[0].norm() * spectra[1].norm())
        assert float(cosine) > 0.95
        assert 3500 <= float(copies.bandwidth[k]) <= 4250


def test_copies_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_coded(corpus(), EVERY, tmp_path)
    monkeypatch.setattr(coded, "code", lambda *_: pytest.fail("coded again"))
    again = load_coded(corpus(), EVERY, tmp_path)
    assert torch.equal(again.samples, first.samples) and torch.equal(again.bandwidth, first.bandwidth)
    assert not list(tmp_path.glob(".*"))  # nothing unfinished


def test_a_share_of_the_recordings_gets_copies(tmp_path: Path) -> None:
    short = corpus_of([noise(4800, seed=k)[0] for k in range(60)], list(range(60)), 48000)
    copies = load_coded(short, CodedCopies(share=0.5, codecs=("mulaw",)), tmp_path)
    assert 20 <= int((copies.bandwidth > 0).sum()) <= 40
    assert (copies.starts[copies.bandwidth == 0] == 0).all()


def test_resemblance_ends_where_content_is_lost() -> None:
    wave = noise(48000, seed=1)[0]
    spectrum = np.fft.rfft(wave)
    spectrum[6000:] *= 0.1  # 20 dB down from 6 kHz on
    narrow = np.fft.irfft(spectrum, len(wave))
    assert resemblance_hz(narrow, wave, 48000) == pytest.approx(6000, abs=300)
    assert resemblance_hz(wave, wave, 48000) == pytest.approx(24000, abs=300)
    assert resemblance_hz(0 * wave, wave, 48000) == 0


def test_inputs_come_from_copies_and_targets_do_not(tmp_path: Path) -> None:
    plain = corpus()
    recordings = Recordings(plain, voices(1), coded=load_coded(plain, EVERY, tmp_path))
    spec = replace(make_config("spectral_bwe", {"margin": 0})).spec
    wide = Degradation(common_cutoffs_hz=(16000.0,), common_cutoff_prob=1.0, resampler_prob=1.0, shelf_prob=0.0)
    task = Upsampling(spec, 4, 0.512, degradation=wide)
    usual = task.batch(recordings, generator(), Ranks())
    batch = replace(task, coded_prob=1.0).batch(recordings, generator(), Ranks())
    torch.testing.assert_close(batch["target"], usual["target"])
    power = torch.fft.rfft(batch["input"][:, 0]).abs().square()
    bins = power.shape[1]
    below, above = power[:, bins // 24 : bins // 8].mean(), power[:, bins // 4 : bins // 2].mean()
    assert above < 1e-3 * below  # nothing from 6 to 12 kHz, although the cutoff is 16 kHz
    assert (batch["cutoff"] <= 4250 * 1.05).all() and (usual["cutoff"] > 12000).all()


def test_impossible_copies_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'mp9' is unknown; known: mp3"):
        CodedCopies(codecs=("mp9",))
    with pytest.raises(UsageError, match="name at least one"):
        CodedCopies(codecs=())
    monkeypatch.setattr(coded, "has_coding", lambda name: name != "mulaw")
    with pytest.raises(UsageError, match="no encoder for mulaw"):
        load_coded(corpus(), EVERY, tmp_path)
