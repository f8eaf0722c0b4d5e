"""Plot measurements: quality against speed, speed alone, and memory against length. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiosr_cli.bench.datasets import Quality
from audiosr_cli.bench.memory import Memory
from audiosr_cli.bench.report import UNITS, Environment, Row, medians
from audiosr_cli.bench.speed import Speed
from audiosr_cli.errors import OutputError
from audiosr_cli.files.atomic import atomic_path

_LOG_RATIO = 4.0  # of the highest to the lowest memory peak, above which the axis is logarithmic


def draw(rows: Sequence[Row], environment: Environment, target: Path) -> None:
    """Draw a panel for each condition of quality, for memory, and for speed if there is no quality, into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(rows)
    figure = Figure(figsize=(6.5 * max(1, len(panels)), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axis, (draw_panel, arguments) in zip(axes, panels, strict=False):
        draw_panel(axis, *arguments)
    figure.supxlabel(str(environment), fontsize=7)
    try:
        with atomic_path(target) as part:
            figure.savefig(part, dpi=110, format="png")
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror}") from error


def _panels(rows: Sequence[Row]) -> list[tuple[Callable[..., None], Any]]:
    """Choose the panels: a function that draws each one, and its arguments."""
    speeds, memories = medians(rows), [row for row in rows if isinstance(row, Memory)]
    costs = {row.model: row.cpu_per_s for row in speeds}
    conditions: dict[str, list[Quality]] = {}
    for row in rows:
        if isinstance(row, Quality) and row.cpu_per_s is not None:
            conditions.setdefault(row.condition, []).append(row)
    panels: list[tuple[Callable[..., None], Any]] = [
        (_quality, (scores, costs if costs.keys() >= {row.model for row in scores} else None))
        for scores in conditions.values()
    ]
    panels += [(_speed, (speeds,))] if speeds and not panels else []
    return panels + ([(_memory, (memories,))] if memories else [])


def _quality(axis: Any, rows: Sequence[Quality], costs: Mapping[str, float] | None) -> None:
    """Plot the first metric against CPU seconds; better is further up and to the left.

    ``costs`` are CPU seconds without start-up, where all candidates were timed.
    """
    figure = next(iter(rows[0].figures))
    for row in rows:
        at = (costs[row.model] if costs else row.cpu_per_s, row.figures[figure])
        axis.plot(*at, "o")
        axis.annotate(row.model, at, xytext=(5, 5), textcoords="offset points", fontsize=8)
    _plain_log(axis)
    axis.margins(0.35)
    if figure.startswith("LSD"):
        axis.invert_yaxis()
    unit = UNITS.get(figure, "")
    label = "CPU seconds per second of audio" + ("" if costs else ", with start-up")
    axis.set(title=rows[0].condition, xlabel=label, ylabel=f"{figure} {unit}".rstrip())
    axis.grid(alpha=0.3)


def _speed(axis: Any, rows: Sequence[Speed]) -> None:
    """Plot CPU seconds as bars."""
    axis.barh([row.model for row in rows], [row.cpu_per_s for row in rows])
    _plain_log(axis)
    axis.invert_yaxis()
    axis.set(title="Speed", xlabel="CPU seconds per second of audio")
    axis.grid(axis="x", alpha=0.3)


def _plain_log(axis: Any) -> None:
    """Make the x axis logarithmic, with plain decimal numbers."""
    from matplotlib.ticker import LogLocator

    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="x", which="minor", labelsize=7)


def _memory(axis: Any, rows: Sequence[Memory]) -> None:
    """Plot memory peaks against lengths, a line for each model."""
    peaks = [row.peak_rss_mb for row in rows if row.peak_rss_mb is not None]
    for model in dict.fromkeys(row.model for row in rows):
        points = [(row.audio_s, row.peak_rss_mb) for row in rows if row.model == model and row.peak_rss_mb is not None]
        if points:
            axis.plot(*zip(*points, strict=True), "o-", label=model)
    if peaks and max(peaks) > _LOG_RATIO * min(peaks):
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.set_xscale("log")
    lengths = sorted({row.audio_s for row in rows})
    axis.set_xticks(lengths, labels=[f"{seconds:g}" for seconds in lengths])
    axis.minorticks_off()
    axis.set(title="Memory", xlabel="seconds of audio", ylabel="peak resident memory, MB")
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
