"""tools/: what the scripts write is what the commands read."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import noise

from audiosr_cli.bench import quality
from audiosr_cli.bench.candidates import BenchSettings
from audiosr_cli.bench.datasets import task_of

TOOLS = Path(__file__).parents[1] / "tools"


def test_written_mixtures_have_the_layout_of_bench_quality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    tool = import_module("score_separation")
    sources = torch.from_numpy(noise(4000, channels=2))
    tool.write([tool.Mixture(sources, sources.sum(0), None, 16000)], tmp_path)
    assert task_of(tmp_path) == "separate"
    (row,) = quality.score_separation(tmp_path, [], BenchSettings(tmp_path))
    assert (row.condition, row.files, row.figures["SI-SDRi"]) == ("2 speakers", 1, 0.0)


def test_perceptual_scores_are_those_of_tracks_mixtures_and_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins score by the first sample: 1 and 3 on the tracks, 2 and 4 in the references, 6 in the mixture."""
    monkeypatch.syspath_prepend(TOOLS)
    tool = import_module("score_separation")
    compare = lambda estimate, reference, rate: {"STOI": float(estimate[0] - reference[0])}  # noqa: E731
    monkeypatch.setattr(tool.perceptual, "compare", compare)
    monkeypatch.setattr(tool.perceptual, "dnsmos", lambda wave, rate: {"DNSMOS OVRL": float(wave[0])})
    made, sources = (torch.tensor(starts)[:, None].expand(2, 5) for starts in ((1.0, 3.0), (2.0, 4.0)))
    assert tool.perceptual_scores(made, sources, torch.full((5,), 6.0), 16000) == {
        "STOI": -1.0,
        "STOI, mixture": 3.0,
        "DNSMOS OVRL": 2.0,
        "DNSMOS OVRL, mixture": 6.0,
        "DNSMOS OVRL, reference": 3.0,
    }


def test_a_tool_without_the_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    tool = import_module("score_separation")
    monkeypatch.setattr(tool.perceptual, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["score_separation.py", "--data", "nowhere", "--perceptual"])
    with pytest.raises(SystemExit):
        tool.main()
    assert "pip install 'audiosr-cli[metrics]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("speakers", "noise", "snr_db", "expected"),
    [
        (2, None, None, None),
        (2, "add", None, (10, 20)),
        (3, None, 5, (5, 5)),
        (1, None, None, (0, 0)),
        (1, None, -5, (-5, -5)),
        (1, "none", None, None),
    ],
)
def test_one_speaker_is_scored_in_noise_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, speakers: int, noise: str | None, snr_db: float | None, expected: object
) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    assert import_module("score_separation").chosen_snr_db(speakers, noise, snr_db) == expected


def test_clean_speech_has_no_improvement_but_a_distance_from_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    tool = import_module("score_separation")
    speech, hiss = torch.from_numpy(noise(16000)), torch.from_numpy(noise(16000, level=0.01, seed=1))
    clean = tool.figures([tool.Mixture(speech, speech[0], None, 16000)], [speech + hiss], turns=False)
    noisy = tool.figures([tool.Mixture(speech, (speech + hiss)[0], None, 16000)], [speech + hiss], turns=False)
    assert clean["SI-SDR"] == clean["SI-SDR, median"] == pytest.approx(20, abs=0.5)
    assert "SI-SDRi" not in clean
    assert noisy["SI-SDRi"] == noisy["SI-SDRi, median"] == 0.0


def test_data_is_the_option_or_the_variable_and_otherwise_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    from argparse import ArgumentParser

    def parse(*arguments: str) -> Path:
        parser = ArgumentParser()
        import_module("data_folder").add_data_option(parser)
        return parser.parse_args(arguments).data

    with pytest.raises(SystemExit):
        parse()
    assert "--data" in capsys.readouterr().err
    monkeypatch.setenv("AUDIOSR_DATA", "recordings")
    assert parse() == Path("recordings")
    assert parse("--data", "others") == Path("others")


def test_results_under_an_instruction_set_are_read_from_what_pytest_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    tool = import_module("instruction_sets")
    output = """..F.s
FAILED tests/a.py::test_b[1 - 2] - AssertionError: 1 failed in 3.0s
ERROR tests/c.py
1 failed, 12 passed, 3 skipped, 1 error in 4.05s
"""
    counts = {"passed": 12, "failed": 1, "errors": 1, "skipped": 3}
    assert tool.parse(output) == (counts, ["tests/a.py::test_b[1 - 2]", "tests/c.py"])
    assert tool.parse("Killed\n") == (dict.fromkeys(counts, 0), [])


def test_an_instruction_set_replaces_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    tool = import_module("instruction_sets")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert "ATEN_CPU_CAPABILITY" not in tool.environment(tool.SETS["native"])
    assert tool.environment(tool.SETS["default"])["ATEN_CPU_CAPABILITY"] == "default"


def test_only_a_buzz_has_a_line_at_the_frame_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    tool = import_module("score_upsampling")
    wave = torch.from_numpy(noise(4 * 48000)[0])
    phase = 2 * torch.pi * tool.FRAMES_HZ * torch.arange(len(wave)) / 48000
    assert abs(tool.line_db(wave)) < 6
    assert tool.line_db(wave * (1 + 0.3 * phase.cos())) > 12
