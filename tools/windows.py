"""Measure what a separator loses by streaming: `python tools/windows.py --model spectral2`.

Scores the mixtures of tools/score_separation.py (SI-SDRi) as a whole and in windows with several contexts, cores and
overlaps, both with the true order of the sources in every window and with the order that the tracker finds.
"""

import argparse
import json
import time
from dataclasses import replace
from statistics import mean
from typing import Any

import torch
from data_folder import add_data_option
from score_separation import RATE, Mixture, improvement, mixtures
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.checkpoints.loading import load_speaker_encoder
from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.dsp.metrics import best_order, si_sdr
from audiosr_cli.models import Model
from audiosr_cli.streaming.speakers import Tracker
from audiosr_cli.streaming.stages import embedder
from audiosr_cli.streaming.windows import Align, Engine

SHAPES_S = [  # context, core, overlap
    (1.0, 2.0, 0.5),
    (0.5, 3.0, 0.5),
    (0.5, 3.0, 1.0),
    (0.5, 3.0, 1.5),
    (0.25, 3.5, 1.75),
    (0.0, 4.0, 2.0),
    (0.5, 4.0, 2.0),
    (1.0, 4.0, 2.0),
    (0.5, 5.0, 1.0),
    (0.5, 5.0, 2.5),
    (0.5, 9.0, 4.5),
]


def shaped(model: Model, context_s: float, core_s: float, overlap_s: float) -> Model:
    """Return ``model`` with other windows."""
    context, core, overlap = (round(s * RATE / 256) * 256 for s in (context_s, core_s, overlap_s))
    config: Any = model.config
    made = type(model)(replace(config, context=context, core=core, overlap=overlap))
    made.load_state_dict(model.state_dict())
    return made.eval()


def known_order(model: Model, sources: Tensor) -> Align:
    """Return an aligner that puts every core into the order of the true ``sources`` (S, T)."""
    at = iter(range(0, 10**9, model.spec.hop))

    def align(_tail: Tensor | None, core: Tensor) -> Tensor:
        first = next(at)
        true = F.pad(sources[:, first : first + core.shape[-1]], (0, core.shape[-1]))[:, : core.shape[-1]]
        return core[list(best_order(core[:, 0], true))]

    return align


def streamed(model: Model, mix: Tensor, align: Align) -> Tensor:
    """Separate a mixture (T,) in windows, by the engine: (S, T)."""

    def forward(x: Tensor) -> Tensor:
        with torch.inference_mode():
            made: Tensor = model(x)
            return made

    engine = Engine(model.spec, forward, 1, 1, align)
    return torch.cat([engine.push(mix[None]), engine.flush()], dim=-1)[:, 0]


def whole(model: Model, mix: Tensor) -> Tensor:
    """Separate a mixture (T,) as one window without context: (S, T)."""
    with torch.inference_mode():
        made: Tensor = shaped(model, 0, 2, 1)(mix[None, None])
        return made[0, :, 0]


def gain(estimate: Tensor, mixture: Mixture) -> float:
    """Return the SI-SDRi in dB for the best order of the estimates."""
    estimate = estimate[list(best_order(estimate, mixture.sources))]
    return improvement(si_sdr, estimate, mixture.sources, mixture.mix)


def main() -> None:
    """Print one JSON object per window shape."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--model", required=True)
    parser.add_argument("--mixtures", type=int, default=40)
    options = parser.parse_args()
    model = load_model(options.model)
    voice = embedder(load_speaker_encoder(), model.spec.in_rate)
    found = mixtures(options.data, options.mixtures, model.spec.sources)
    print(json.dumps({"whole": round(mean(gain(whole(model, m.mix), m) for m in found), 3)}), flush=True)
    for context_s, core_s, overlap_s in SHAPES_S:
        other = shaped(model, context_s, core_s, overlap_s)
        ordered = mean(gain(streamed(other, m.mix, known_order(other, m.sources)), m) for m in found)
        begun = time.process_time()
        made = [streamed(other, m.mix, Tracker(True, voice)) for m in found]
        cost = (time.process_time() - begun) / sum(len(m.mix) / RATE for m in found)
        tracked = mean(gain(estimate, m) for estimate, m in zip(made, found, strict=True))
        row = {"context (s)": context_s, "core (s)": core_s, "overlap (s)": overlap_s, "CPU-s per s": round(cost, 3)}
        print(json.dumps(row | {"known order": round(ordered, 3), "tracked": round(tracked, 3)}), flush=True)


if __name__ == "__main__":
    main()
