"""streaming/labelling.py: turns of a recording while it is processed, and the files that hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import noise

from audiosr_cli.conversation.turns import TurnConfig
from audiosr_cli.errors import OutputError
from audiosr_cli.streaming.labelling import Labelling, Labels

RATE = 8000
SPEAKERS = ("speaker1", "speaker2")


def talk() -> np.ndarray:
    """Two speakers and a residual (3, T): each speaks for 2 s, the second after the first; the residual is loud."""
    one, two, rest = noise(4 * RATE, 3)
    one[2 * RATE :] *= 1e-4
    two[: 2 * RATE] *= 1e-4
    return np.stack([one, two, 3 * rest])


def turns(labelling: Labelling, block: int = 1000) -> list[tuple[str, float, float]]:
    signal = talk()
    for start in range(0, signal.shape[1], block):
        labelling.push(signal[:, start : start + block], 3)
    return [(t.speaker, round(t.start_s, 1), round(t.end_s, 1)) for t in labelling.finish()]


def test_turns_are_those_of_the_speakers_whatever_the_residual_holds() -> None:
    labels = Labels(config=TurnConfig(smooth_s=0.0, margin_s=0.0))
    labelling = Labelling(labels, "a/talk.wav", SPEAKERS, RATE)
    assert turns(labelling) == [("speaker1", 0.0, 2.0), ("speaker2", 2.0, 4.0)]


def test_files_appear_at_commit(tmp_path: Path) -> None:
    targets = [tmp_path / "talk.rttm", tmp_path / "talk.txt"]
    with Labelling(Labels(("rttm", "audacity")), "a/talk.wav", SPEAKERS, RATE, targets) as labelling:
        turns(labelling)
        assert not any(path.exists() for path in targets)
        labelling.commit()
    assert targets[0].read_text().startswith("SPEAKER talk 1 0.000 2.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk.rttm", "talk.txt"]


def test_no_turn_ends_after_the_recording(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Levels are measured in frames of 10 ms, of which the last one may be cut short; praatio would print a warning."""
    pytest.importorskip("praatio")
    labels, target = Labels(("textgrid",)), tmp_path / "talk.TextGrid"
    with Labelling(labels, "talk.wav", ("speaker1",), RATE, [target]) as labelling:
        labelling.push(noise(RATE + 23), 1)
        (turn,) = labelling.finish()
        labelling.commit()
    assert turn.end_s == (RATE + 23) / RATE
    assert capfd.readouterr() == ("", "")


def test_without_commit_nothing_is_left(tmp_path: Path) -> None:
    with Labelling(Labels(("rttm",)), "talk.wav", SPEAKERS, RATE, [tmp_path / "talk.rttm"]) as labelling:
        turns(labelling)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_must_be_new_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "talk.rttm"
    target.write_text("mine")
    with (
        Labelling(Labels(("rttm",)), "talk.wav", SPEAKERS, RATE, [target], {target}) as labelling,
        pytest.raises(OutputError, match="was created while processing"),
    ):
        turns(labelling)
        labelling.commit()
    assert target.read_text() == "mine"


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "talk.rttm"
    with (
        Labelling(Labels(("rttm",)), "talk.wav", SPEAKERS, RATE, [target]) as labelling,
        pytest.raises(OutputError, match=r"talk\.rttm: cannot be written"),
    ):
        turns(labelling)
