"""A pipeline that counts speakers, with a counter that finds what a test wants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from conftest import halves

from audiosr_cli.models import Model
from audiosr_cli.streaming.auto import AutoPipeline
from audiosr_cli.streaming.counting import SpeakerCount
from audiosr_cli.streaming.counting_config import COUNTING
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.pipeline import Pipeline

SHORT = replace(COUNTING, pipe_seconds=1.0, max_seconds=2.0, part_seconds=0.5)


@dataclass
class Counter:
    """Finds as many speakers as it is told, and keeps what it is given."""

    result: SpeakerCount
    models: tuple[Model, ...] = ()
    config: Any = SHORT
    signal: Samples = field(default_factory=lambda: np.zeros((1, 0), np.float32))

    def count(self, blocks: Iterable[Samples], sample_rate: int, options: Options) -> SpeakerCount:
        self.signal = np.concatenate(list(blocks), axis=1)
        return replace(self.result, analysed_s=self.signal.shape[1] / sample_rate, elapsed_s=1000.0)


def auto(speakers: int = 2, residual: bool = False, options: Options | None = None, **values: Any) -> AutoPipeline:
    options = options or Options(provenance=False)
    models = [(), (halves(),), (halves(sources=3),)]
    by_count = tuple(Pipeline(chain, None, options, residual=residual) for chain in models)
    result = SpeakerCount(**{"speakers": speakers, "confidence": 0.9, "voices": speakers} | values)
    counter = cast("Any", Counter(result))
    return AutoPipeline((), None, options, residual=residual, by_count=by_count, counter=counter)
