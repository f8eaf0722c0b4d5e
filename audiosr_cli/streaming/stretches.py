"""Where the bandwidth of a recording changes: over time, and from channel to channel.

One pass measures the long-term spectrum, and beside it, in windows of a second, whether there is a wall above which
nothing is heard (`dsp.band_limits`). All channels together decide, unless one of them is limited at other times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.dsp.band_limits import WINDOW, FrameSpectra, cell_bounds, wall_cells
from audiosr_cli.dsp.band_plan import WIDE
from audiosr_cli.dsp.band_track import BandTrack
from audiosr_cli.dsp.bandwidth import BandMeter
from audiosr_cli.streaming.options import Samples

# Ratio of two cutoffs from which they are told apart. Set by hand, November 2026, as the next three.
_RATIO = 1.4
# Seconds for which a channel has to differ from all channels together, and the least share of the recording. Shorter
# differences are those of where a stretch begins.
_DIFFERENCE_S, _DIFFERENCE_SHARE = 1.5, 0.02
# Seconds of the crossfades between stretches. They lie within the restored one, so that the other is not touched.
FADE_S = 0.02


@dataclass(frozen=True)
class Stretch:
    """A part of a recording, or of one channel of it, with one bandwidth.

    Attributes:
        start_s: Where it begins, in seconds of the output.
        end_s: Where it ends; infinite if that is not known yet.
        cutoff_hz: Frequency in Hz at which its content ends; None for silence.
        channel: Counted from 1; None for all channels.
    """

    start_s: float
    end_s: float
    cutoff_hz: float | None
    channel: int | None = None


@dataclass(frozen=True)
class Bandwidth:
    """Where the content of a recording ends.

    Attributes:
        cutoff_hz: Frequency in Hz, of the widest stretch if there are several; None for silence.
        stretches: In the order of channels and times; empty if the whole recording has the same cutoff.
    """

    cutoff_hz: float | None
    stretches: tuple[Stretch, ...] = ()

    def continued(self) -> Bandwidth:
        """Return the bandwidth of a recording that begins like this: after the last stretch that of the widest."""
        extended = list[Stretch]()
        for stretch, following in zip(self.stretches, (*self.stretches[1:], None), strict=False):
            if following is not None and following.channel == stretch.channel:
                extended.append(stretch)
            elif stretch.cutoff_hz == self.cutoff_hz:
                extended.append(replace(stretch, end_s=math.inf))
            else:  # if the recording ends here, this stretch shall not fade out
                end_s = stretch.end_s + FADE_S
                extended += [replace(stretch, end_s=end_s), Stretch(end_s, math.inf, self.cutoff_hz, stretch.channel)]
        return replace(self, stretches=tuple(extended))

    def until(self, end_s: float) -> Bandwidth:
        """Return the bandwidth of a recording that ends at ``end_s`` seconds."""
        inside = [stretch for stretch in self.stretches if stretch.start_s < end_s]
        return replace(self, stretches=tuple(replace(s, end_s=min(s.end_s, end_s)) for s in inside))


UNKNOWN = Bandwidth(None)


class StretchMeter:
    """Measure the bandwidth of a recording in one pass. For each hour and channel it needs about 2 MB.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._meter = BandMeter(sample_rate)
        self._spectra = FrameSpectra(sample_rate)
        self._window = WINDOW * self._spectra.size
        self._tracks = list[BandTrack]()  # of all channels together, and of each if there are several
        self._pending: Samples | None = None
        self._frames = 0

    def push(self, block: Samples) -> None:
        """Add a block (C, T) of the recording."""
        self._meter.push(block)
        self._frames += block.shape[1]
        if not len(wall_cells(len(cell_bounds(self.sample_rate)) - 1)):
            return
        pending = block if self._pending is None else np.concatenate([self._pending, block], axis=1)
        while pending.shape[1] >= self._window:
            self._measure(pending[:, : self._window])
            pending = pending[:, self._window :]
        self._pending = pending.copy()

    def _measure(self, samples: Samples) -> None:
        channels = len(samples)
        power = self._spectra.measure(samples)
        if not self._tracks:
            self._tracks = [BandTrack(self.sample_rate) for _ in range(channels + 1 if channels > 1 else 1)]
        self._tracks[0].push(power.sum(0), samples)
        for channel, track in enumerate(self._tracks[1:]):
            track.push(power[channel], samples[channel : channel + 1])

    def bandwidth(self) -> Bandwidth:
        """Detect the bandwidth of what was pushed; call it once, at the end."""
        cutoff_hz = self._meter.cutoff()
        if self._pending is not None and (whole := self._pending.shape[1] // self._spectra.size * self._spectra.size):
            self._measure(self._pending[:, :whole])
        stretches = self._stretches()
        if stretches:
            cutoff_hz = max((stretch.cutoff_hz for stretch in stretches if stretch.cutoff_hz is not None), default=None)
        return Bandwidth(cutoff_hz, stretches)

    def _stretches(self) -> tuple[Stretch, ...]:
        """Return the stretches, none if there is only one for all channels."""
        plans = [_plan(track, self.sample_rate) for track in self._tracks]
        if len(plans) > 1 and any(self._differ(plan, plans[0]) for plan in plans[1:]):
            return tuple(s for channel, plan in enumerate(plans[1:], 1) for s in self._listed(plan, channel))
        stretches = self._listed(plans[0], None) if plans else []
        return tuple(stretches) if len(stretches) > 1 else ()

    def _differ(self, channel: _Plan, together: _Plan) -> bool:
        """Check whether a channel has other cutoffs than all channels together, for long enough."""
        if np.isnan(channel.cutoff).all():  # silence
            return False
        # Where there is no wall, the cutoff is one of the mean spectrum, which differs with what is played.
        has_wall = channel.has_wall | together.has_wall
        other = has_wall & (np.abs(np.log(channel.cutoff / together.cutoff)) > math.log(_RATIO))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], other, [0]])))
        lengths = (edges[1::2] - edges[::2]) * self._spectra.frame_s
        least = max(_DIFFERENCE_S, _DIFFERENCE_SHARE * len(other) * self._spectra.frame_s)
        return bool(lengths[lengths >= _DIFFERENCE_S].sum() >= least)

    def _listed(self, plan: _Plan, channel: int | None) -> list[Stretch]:
        cutoff = plan.cutoff
        edges = [0, *(np.flatnonzero(np.diff(np.nan_to_num(cutoff))) + 1).tolist(), len(cutoff)]
        times = [edge * self._spectra.frame_s for edge in edges[:-1]] + [self._frames / self.sample_rate]
        values = [None if math.isnan(cutoff[edge]) else float(cutoff[edge]) for edge in edges[:-1]]
        return [Stretch(*part, channel) for part in zip(times, times[1:], values, strict=False)]


@dataclass(frozen=True)
class _Plan:
    """The cutoff of each frame in Hz (T,), NaN throughout for silence, and whether there is a wall (T,)."""

    cutoff: NDArray[np.float64]
    has_wall: NDArray[np.bool_]


def _plan(track: BandTrack, sample_rate: int) -> _Plan:
    """Return the cutoffs of a track, those that are nearly the same as the widest replaced by it."""
    labels = track.labels()
    values = {int(wall): track.cutoff(int(wall)) for wall in np.unique(labels)}
    if list(values.values()) == [None] and WIDE in values:
        return _Plan(np.full(len(labels), np.nan), labels != WIDE)
    cutoffs = {wall: sample_rate / 2 if cutoff is None else cutoff for wall, cutoff in values.items()}
    widest = cutoffs.get(WIDE, max(cutoffs.values(), default=0.0))
    table = np.zeros(256)
    for wall, cutoff in cutoffs.items():
        table[wall] = cutoff if _RATIO * cutoff <= widest else widest
    return _Plan(table[labels], labels != WIDE)


def measure_bandwidth(blocks: Iterable[Samples], sample_rate: int) -> Bandwidth:
    """Detect the bandwidth of a signal in blocks (C, T) at ``sample_rate`` Hz."""
    meter = StretchMeter(sample_rate)
    for block in blocks:
        meter.push(block)
    return meter.bandwidth()
