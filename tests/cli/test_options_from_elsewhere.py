"""Commands that take options from presets, variables and files."""

from __future__ import annotations

import json
from typing import Any

import pytest
import soundfile
import typer
from config_places import Places
from conftest import noise
from running import inside

from audiosr_cli.batch import processes
from audiosr_cli.batch.run import run
from audiosr_cli.cli.main import app
from audiosr_cli.pipelines import PipelineConfig


def record(places: Places) -> None:
    soundfile.write(places.folder / "a.wav", noise(800).T, 8000)


def test_a_command_takes_its_options_from_everywhere(places: Places) -> None:
    record(places)
    text = "[upsample]\nmodel = 'none'\nrate = '16k'\n[preset.cd]\nrate = '44.1k'\nsubtype = '24bit'"
    places.write(text, "output = 'out'\nquiet = true", TEMPLATE="{stem}.{ext}")
    assert inside("upsample", "a.wav", cwd=places.folder).stdout == b""
    done = inside("upsample", "a.wav", "--preset", "cd", "--no-quiet", "-y", cwd=places.folder)
    assert (done.returncode, done.stdout) == (0, b"out/a.wav\n")
    written = soundfile.info(places.folder / "out" / "a.wav")
    assert (written.samplerate, written.subtype) == (44100, "PCM_24")
    done = inside("upsample", "a.wav", "--preset", "cd", "-y", "-r", 8000, "-v", "--no-quiet", cwd=places.folder)
    assert soundfile.info(places.folder / "out" / "a.wav").samplerate == 8000
    assert b"options from ./audiosr.toml [preset.cd]: subtype\n" in done.stderr
    assert b"options from $AUDIOSR_TEMPLATE: template\n" in done.stderr
    done = inside("upsample", "a.wav", "--no-config", "--model", "none", "-o", "x", "--dry-run", cwd=places.folder)
    assert done.stdout == "a.wav → x/a.wav\n".encode()


def test_workers_and_the_manifest_get_resolved_options(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_this_process(items: Any, config: PipelineConfig, plan: Any, jobs: int, on_event: Any) -> Any:
        assert (jobs, config.options.start_s, plan.subtype) == (2, 0.05, "FLOAT")
        return run(items, config.build(), plan, on_event)

    monkeypatch.setattr(processes, "run", in_this_process)
    record(places)
    soundfile.write(places.folder / "b.wav", noise(800).T, 8000)
    places.write("[upsample]\nmodel = 'none'\nrate = '16k'", "subtype = 'f32'\nstart = '0:00.05'\njobs = 2")
    done = inside("upsample", "a.wav", "b.wav", "-o", "out", "--manifest", "run.jsonl", cwd=places.folder)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (places.folder / "run.jsonl").read_text().splitlines()]
    (row, _) = (row for row in rows if row["status"] == "done")
    assert {"rate": 16000, "subtype": "FLOAT", "start_s": 0.05, "model": "none"}.items() <= row["settings"].items()
    assert soundfile.info(places.folder / "out" / "b_16000.wav").frames == 800


def test_help_works_beside_a_broken_file_and_other_calls_say_what_is_broken(places: Places) -> None:
    places.write("speakers = ")
    assert inside("separate", "--help", cwd=places.folder).returncode == 0
    done = inside("separate", "a.wav", cwd=places.folder)
    assert (done.returncode, done.stderr[:44]) == (2, b"audiosr: ./audiosr.toml: is not valid TOML: ")


def test_an_error_of_usage_says_that_options_come_from_elsewhere(places: Places) -> None:
    record(places)
    places.write("json = true")
    done = inside("upsample", "a.wav", "-o", "-", cwd=places.folder)
    assert done.returncode == 2
    assert b"hint: some options come from elsewhere; see audiosr config show upsample\n" in done.stderr


def test_a_pipe_stays_a_pipe_beside_an_output_folder(places: Places) -> None:
    """``upsample -`` writes to standard output unless its own command line says otherwise."""
    places.write("output = 'out'")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]

    def output(command: str, *words: str) -> str:
        return commands[command].make_context(command, list(words)).params["output"]

    assert output("upsample", "-") is None
    assert output("upsample", "-", "-o", "x") == "x"
    assert output("upsample", "a.wav") == output("separate", "-") == "out"


def test_an_output_on_the_command_line_decides_on_the_format(places: Places) -> None:
    places.write("format = 'flac'")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]

    def container(*words: str) -> str | None:
        return commands["upsample"].make_context("upsample", list(words)).params["container"]

    assert container("a.wav", "-o", "x.mp3") is container("a.wav", "-o", "-") is container("-") is None
    assert container("a.wav", "-o", "folder") == container("a.wav") == container("-", "-o", "folder") == "flac"
    assert container("a.wav", "-o", "x.mp3", "--format", "ogg") == "ogg"
