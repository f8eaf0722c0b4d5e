"""train/resuming.py: changed settings are named in a warning and applied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from conftest import noise
from corpora import RUN, Rows, run

from audiosr_cli.train import checkpoint
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.resuming import changed_settings, current_names

STEPS = RUN.replace("minutes = 0.05", "steps = 2\nlearning_rate = 1e-3")


def warnings_of(rows: Rows) -> list[str]:
    return [row["text"] for row in rows if row["event"] == "warning"]


def longer(text: str = STEPS) -> str:
    return text.replace("steps = 2", "steps = 4").replace("valid_every_min = 0.02", "valid_every_min = 0.03")


def test_another_budget_or_folder_resumes_without_a_warning(speakers: Path) -> None:
    run(speakers, STEPS)
    (speakers / "train").rename(speakers / "moved")
    (speakers / "train").symlink_to(speakers / "moved")
    _, rows = run(speakers, longer(), resume=True)
    assert warnings_of(rows) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("learning_rate = 1e-3", "learning_rate = 3e-3"), "[loop] learning_rate = 0.003 (before: 0.001)"),
        (("batch_size = 2", "batch_size = 3"), "[task] batch_size = 3 (before: 2)"),
        (("crop_s = 0.256", "crop_s = 0.512"), "[task] crop_s = 0.512 (before: 0.256)"),
        (("[0.0, 0.0]", "[-9.0, 0.0]"), "[task.mixing] level_db = [-9.0, 0.0] (before: [0.0, 0.0])"),
        (('train = ["train"]', 'train = ["train", "valid"]'), '[data] train = ["train", "valid"] (before: ["train"])'),
    ],
)
def test_each_changed_setting_is_named_with_both_values(change: tuple[str, str], message: str, speakers: Path) -> None:
    run(speakers, STEPS)
    _, rows = run(speakers, longer(STEPS.replace(*change)), resume=True)
    (warning,) = warnings_of(rows)
    assert message in warning
    assert warning.count("(before: ") == 1 + ("train =" in change[0])  # of other folders the content, too
    logged = [json.loads(line) for line in (speakers / "out" / "metrics.jsonl").read_text().splitlines()]
    assert warnings_of(logged) == [warning]
    _, again = run(speakers, longer(STEPS.replace(*change)).replace("steps = 4", "steps = 5"), resume=True)
    assert warnings_of(again) == []


def test_other_recordings_under_the_same_names_are_named_in_a_warning(speakers: Path) -> None:
    run(speakers, STEPS)
    soundfile.write(speakers / "train/a/0.flac", noise(32000)[0], 16000)
    _, rows = run(speakers, longer(), resume=True)
    (warning,) = warnings_of(rows)
    assert "training recordings = 6 of 0.002 h" in warning
    assert "validation" not in warning


def test_training_continues_with_the_new_settings(speakers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(speakers, STEPS)
    used: list[tuple[int, float, float]] = []
    real = Trainer.train_step

    def watched(self: Trainer, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        terms = real(self, batch)
        group = self.optimizer.param_groups[0]
        used.append((len(batch["input"]), self.config.learning_rate, group["weight_decay"]))
        return terms

    monkeypatch.setattr(Trainer, "train_step", watched)
    text = longer(STEPS.replace("batch_size = 2", "batch_size = 3").replace("1e-3", "2e-3\nweight_decay = 0.5"))
    run(speakers, text, resume=True)
    assert used == [(3, 2e-3, 0.5)] * 2


def test_a_state_of_an_earlier_version_resumes_without_a_word(speakers: Path) -> None:
    run(speakers, STEPS)
    for path in (speakers / "out").glob("state-*.pt"):
        folder = path.parent / "one"
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
        state = checkpoint.load(folder)[0]
        del state["settings"]
        torch.save(state, path)
        (folder / path.name).unlink()
    _, rows = run(speakers, longer(STEPS.replace("1e-3", "3e-3")), resume=True)
    assert warnings_of(rows) == []
    assert checkpoint.load(speakers / "out")[0]["settings"]["[loop] learning_rate"] == 3e-3


def test_a_damaged_state_is_named_and_the_older_one_is_used(speakers: Path) -> None:
    run(speakers, STEPS + "save_every_min = 1e-6\n")
    state, slot = checkpoint.load(speakers / "out")
    newest = speakers / "out" / f"state-{(slot + 1) % 2}.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    _, rows = run(speakers, longer(), resume=True)
    (warning,) = warnings_of(rows)
    assert f"{newest.name}: the newer of two states is damaged" in warning
    assert checkpoint.load(speakers / "out")[0]["step"] == 4 > state["step"]


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({}, {"[loop] ema": 0.9}, ""),  # of an earlier version
        ({"[loop] ema": 0.9}, {}, ""),
        ({"[loop] ema": 0.9}, {"[loop] ema": 0.9}, ""),
        ({"[loop] ema": 0.9, "n": 1}, {"[loop] ema": 0.0, "n": 2}, "[loop] ema = 0.0 (before: 0.9), n = 2 (before: 1)"),
    ],
)
def test_only_settings_on_both_sides_can_change(before: dict[str, Any], now: dict[str, Any], message: str) -> None:
    assert changed_settings(before, now).endswith(message)
    assert bool(changed_settings(before, now)) == bool(message)


def test_a_state_of_version_0_1_is_resumed(speakers: Path) -> None:
    """Its entries have other names."""
    run(speakers, STEPS)
    state, _ = checkpoint.load(speakers / "out")
    former = {"audio_s": "heard_s", "stale_validations": "stale", "next_slot": "turn", "discriminators": "opponent"}
    former |= {"joint_model": "partner", "auxiliary": "aids"}
    for slot in (0, 1):
        checkpoint.save(speakers / "out", {former.get(key, key): value for key, value in state.items()}, slot)
    run(speakers, longer(), resume=True)
    resumed, _ = checkpoint.load(speakers / "out")
    assert (resumed["step"], resumed["audio_s"]) == (4, pytest.approx(2 * state["audio_s"]))
    assert set(resumed) == set(state)


def test_discriminators_of_version_0_1_are_resumed() -> None:
    state = current_names({"opponent": {"critics": {"w": 1}, "optimizer": {}}, "heard_s": 2.0})
    assert state == {"discriminators": {"discriminators": {"w": 1}, "optimizer": {}}, "audio_s": 2.0}
