"""jobs.py: worker processes give what one process gives; killed ones are in faults/test_batches.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from conftest import noise

from audiosr_cli import api, batch, jobs
from audiosr_cli.errors import ModelError
from audiosr_cli.inputs import Item
from audiosr_cli.naming import Naming
from audiosr_cli.stages import Options

EVENTS = list[batch.Started | batch.Advanced]


def test_outcomes_and_events_come_back(tmp_path: Path) -> None:
    items = [Item(str(tmp_path / f"{i}.wav")) for i in range(4)]
    for item in items[1:]:
        soundfile.write(item.source, noise(800).T, 8000)
    recipe = batch.Recipe(api.upsampling, {"rate": 16000, "model": "none"}, Options())
    plan = batch.Plan(Naming(str(tmp_path / "out"), "{stem}.{ext}"), fingerprints=True)
    events: EVENTS = []
    outcomes = list(jobs.run(items, recipe, plan, 2, events.append))
    assert {outcome.item: outcome.status for outcome in outcomes} == dict(
        zip(items, ["failed", "done", "done", "done"], strict=True)
    )
    assert {event.item for event in events if isinstance(event, batch.Started)} == set(items[1:])
    assert all(outcome.source and len(outcome.made) == 1 for outcome in outcomes if outcome.report)


def test_workers_that_cannot_load_their_models(tmp_path: Path) -> None:
    recipe = batch.Recipe(api.upsampling, {"model": "no"}, Options())
    plan = batch.Plan(Naming(str(tmp_path), "{stem}.{ext}"))
    with pytest.raises(ModelError, match="no model 'no'"):
        list(jobs.run([Item("a.wav"), Item("b.wav")], recipe, plan, 2, lambda _: None))
