"""bench/report.py and plot.py: tables, JSON, Markdown and plots."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiosr_cli.bench import report
from audiosr_cli.bench.candidates import Failure
from audiosr_cli.bench.datasets import Quality
from audiosr_cli.bench.memory import Memory
from audiosr_cli.bench.report import Environment, Row, as_json, markdown, tables
from audiosr_cli.bench.speed import Machine, Speed

WHERE = Environment("Some CPU", 2, "2.9", "0.1.0 at abc1234", "2026-11-24")
MACHINE = Machine(100.0, 400.0, 2)
ROWS: list[Row] = [
    MACHINE,
    Speed("ours", 10.0, 1, 0.5, 1.0, 300.4, 1.8, 0.9, 2.0, bf16=True),
    Speed("theirs (random weights)", 10.0, 1, 4.0, 8.0, 812.0, 3.0, 0.9, 2.0),
    Speed("ours", 10.0, 1, 0.7, 1.4, 310.4, 1.9, 0.9, 2.0),
    Speed("ours", 10.0, 1, 9.0, 18.0, 300.4, 2.0, 0.9, 2.0),
    Failure("broken", "no"),
    Memory("ours", 1.0, 300.2),
    Memory("ours", 60.0, 301.0),
    Memory("theirs (random weights)", 1.0, 800.0),
    Memory("theirs (random weights)", 60.0, None, "would need about 40 GB"),
    Quality("the mixture", "2 speakers", 3, None, {"SI-SDRi": 0.0, "lag": 0.0, "gain": -0.001}),
    Quality("ours", "2 speakers", 3, 0.1234, {"SI-SDRi": 6.339, "lag": -7.0}),
]
MARKDOWN = """\
Speed, medians of 3 runs; roofline: 100 GFLOP/s (bf16 400), 2 threads:

| model | audio s | real-time factor | CPU s per s | × ours | start-up s | of which torch s | peak RSS MB | GFLOP per s | × roofline |
|---|---|---|---|---|---|---|---|---|---|
| ours | 10.0 | 0.0700 | 0.1400 | 1 | 1.90 | 0.90 | 310 | 2.00 | 14.0 |
| theirs (random weights) | 10.0 | 0.4000 | 0.8000 | 5.71 | 3.00 | 0.90 | 812 | 2.00 | 20.0 |

Peak resident memory, MB:

| model | 1 s | 60 s |
|---|---|---|
| ours | 300 | 301 |
| theirs (random weights) | 800 | would need about 40 GB |

Quality, means over the files:

| model | condition | files | SI-SDRi dB | lag samples | gain dB | CPU s per s, with start-up |
|---|---|---|---|---|---|---|
| the mixture | 2 speakers | 3 | 0.00 | 0 | 0.00 | – |
| ours | 2 speakers | 3 | 6.34 | -7 | – | 0.123 |

Some CPU, 2 cores; torch 2.9; audiosr 0.1.0 at abc1234; 2026-11-24."""  # noqa: E501


def test_markdown_tables() -> None:
    assert markdown(tables(ROWS), WHERE) == MARKDOWN


def test_only_measurements_have_tables() -> None:
    assert tables([Failure("broken", "no"), MACHINE]) == []
    (only,) = tables(ROWS[1:2])
    assert only.title == "Speed, one run"
    assert only.rows == (("ours", "10.0", "0.0500", "0.1000", "1", "1.80", "0.90", "300", "2.00", "–"),)


def test_json_has_the_kind_and_derived_figures() -> None:
    speed = json.loads(as_json(ROWS[1]))
    assert (speed["kind"], speed["model"]) == ("speed", "ours")
    assert (speed["real_time_factor"], speed["cpu_s_per_s"]) == (0.05, 0.1)
    where = json.loads(as_json(WHERE))
    assert (where["kind"], where["commit"]) == ("environment", "0.1.0 at abc1234")
    kinds = [json.loads(as_json(row))["kind"] for row in ROWS]
    assert set(kinds) == {"machine", "speed", "failure", "memory", "quality"}
    assert json.loads(as_json(ROWS[-1]))["figures"] == {"SI-SDRi": 6.339, "lag": -7.0}


def test_the_environment_is_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    where = report.environment()
    assert where.torch == torch.__version__
    assert where.cores >= 1
    assert where.cpu
    monkeypatch.setattr(report, "commit", lambda: "abc1234")
    assert report.environment().commit == f"{report.__version__} at abc1234"
    monkeypatch.setattr(report, "commit", lambda: "")
    assert report.environment().commit == report.__version__


@pytest.mark.parametrize("rows", [ROWS, ROWS[:6], ROWS[6:8], [Quality("a", "8000 → 48000 Hz", 1, 0.1, {"LSD": 1.0})]])
def test_a_picture_is_drawn(rows: list[Row], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from audiosr_cli.bench.plot import draw

    draw(rows, WHERE, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
