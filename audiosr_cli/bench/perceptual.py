"""Perceptual metrics: STOI, PESQ, ViSQOL and DNSMOS, which packages of the extra ``metrics`` compute.

STOI (Taal et al. 2011) predicts how much of the speech is understood, 0 to 1; PESQ (ITU-T P.862.2, wide-band) how its
quality is judged, 1 to 4.64; ViSQOL (Chinen et al. 2020, for full-band audio) how that of any sound is, 1 to 4.75. They
compare with a reference. DNSMOS (Reddy et al. 2022) predicts, without one, how
listeners rate a recording after ITU-T P.835, 1 to 5: all in all (OVRL), its speech (SIG) and its background (BAK).
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audiosr_cli.audio.resample import Resampler
from audiosr_cli.errors import UsageError

# The packages by the names of their modules.
PACKAGES = {
    "pystoi": "pystoi",
    "pesq": "pesq",
    "visqol": "visqol-python",
    "speechmos": "speechmos",
    "onnxruntime": "onnxruntime",
}
RATE = 16000  # of wide-band PESQ and DNSMOS, in Hz; recordings with a lower rate have neither
VISQOL_RATE = 48000  # of ViSQOL in audio mode, in Hz; other recordings have none
# DNSMOS rates windows of 9.01 s that start a second apart.
_WINDOW = int(9.01 * RATE)
# The raw outputs of its network become ratings by polynomials, highest power first; as in speechmos 0.0.1.1.
_RATINGS = {
    "DNSMOS SIG": (-0.08397278, 1.22083953, 0.0052439),
    "DNSMOS BAK": (-0.13166888, 1.60915514, -0.39604546),
    "DNSMOS OVRL": (-0.06766283, 1.11546468, 0.04602535),
}


def check_installed(option: str) -> None:
    """Raise UsageError that names ``option`` and the extra if a package is missing."""
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(
            f"{option}: {', '.join(missing)} {verb} not installed; pip install 'audiosr-cli[metrics]'",
            "pesq is compiled during installation, which needs a C compiler" if "pesq" in missing else None,
        )


def compare(estimate: Tensor, reference: Tensor, rate: int) -> dict[str, float]:
    """Compute STOI, PESQ and ViSQOL.

    Args:
        estimate: (T,).
        reference: (T,), not silent.
        rate: Sample rate in Hz.

    Returns:
        All by name; PESQ is missing below 16 kHz and where it finds no speech in the reference, ViSQOL as in
        `visqol`.
    """
    scores = {"STOI": float(import_module("pystoi").stoi(reference.numpy(), estimate.numpy(), rate))}
    if rate >= RATE:
        pesq = import_module("pesq")
        pair = [_at_16khz(wave, rate) for wave in (reference, estimate)]
        quality = float(pesq.pesq(RATE, *pair, "wb", on_error=pesq.PesqError.RETURN_VALUES))
        scores |= {"PESQ": quality} if quality > 0 else {}
    return scores | visqol(estimate, reference, rate)


def visqol(estimate: Tensor, reference: Tensor, rate: int) -> dict[str, float]:
    """Compute ViSQOL, for speech and any other sound.

    Args:
        estimate: (T,).
        reference: (T,).
        rate: Sample rate in Hz.

    Returns:
        ViSQOL by name; nothing at other rates than 48 kHz, for less than about a second, and for silence.
    """
    if rate != VISQOL_RATE:
        return {}
    pair = (wave.double().numpy() for wave in (reference, estimate))
    try:
        with np.errstate(invalid="ignore"):
            score = float(_visqol_model().measure_from_arrays(*pair, VISQOL_RATE).moslqo)
    except ValueError:  # the reference is too short
        return {}
    return {} if np.isnan(score) else {"ViSQOL": score}


@cache
def _visqol_model() -> Any:
    """Load the package's model of full-band audio."""
    model = import_module("visqol").VisqolApi()
    model.create(mode="audio")
    return model


def dnsmos(wave: Tensor, rate: int) -> dict[str, float]:
    """Compute DNSMOS P.835.

    The network is that in speechmos. Its own code is not used, because it needs librosa, for a rating that is not
    wanted here; the results are the same (tests/bench/test_perceptual.py).

    Args:
        wave: (T,). Samples beyond full scale are clipped, as in a file.
        rate: Sample rate in Hz.

    Returns:
        SIG, BAK and OVRL by name; nothing below 16 kHz, or without samples.
    """
    if rate < RATE or not len(wave):
        return {}
    samples = _at_16khz(wave, rate).clip(-1, 1)
    while len(samples) < _WINDOW:
        samples = np.concatenate([samples, samples])
    starts = range(0, (int(len(samples) // RATE - _WINDOW / RATE) + 1) * RATE, RATE)
    raw = [_dnsmos_network().run(None, {"input_1": samples[None, i : i + _WINDOW]})[0][0] for i in starts]
    columns = np.transpose(raw)
    return {name: float(np.polyval(_RATINGS[name], x).mean()) for name, x in zip(_RATINGS, columns, strict=True)}


@cache
def _dnsmos_network() -> Any:
    """Load the network on one thread, as the other metrics are."""
    runtime, spec = import_module("onnxruntime"), find_spec("speechmos")
    assert spec is not None
    assert spec.origin is not None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    path = Path(spec.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _at_16khz(wave: Tensor, rate: int) -> NDArray[np.float32]:
    resampled: NDArray[np.float32] = Resampler(rate, RATE, 1).push(wave.unsqueeze(0).numpy(), last=True)[0]
    return resampled
