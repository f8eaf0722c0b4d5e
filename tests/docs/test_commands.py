"""Commands, sessions, Python and JSON of the documentation are what the program has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import doc_pages
import numpy as np
import pytest
import soundfile
import typer
from doc_pages import ROOT
from typer.testing import CliRunner

from audiosr_cli.checkpoints import catalogue
from audiosr_cli.cli.main import app

PAGES = [page for page in doc_pages.PAGES if page not in doc_pages.GENERATED]
INVOCATIONS = sorted({tuple(words) for page in PAGES for words in doc_pages.invocations(page)})
PROCESSING = {"separate", "upsample", "separate-sr", "turns"}
NOT_HERE = {
    "-",
    "--ray",
    "cuda",
    "--spectrogram",
    "--files-from",
    "--start",
    "--audio-stream",
}  # pipes, videos and so on: parsed only
PIPELINES = ROOT / "docs/guides/pipelines.md"


def parse(words: tuple[str, ...]) -> None:
    """Parse a call as the program would, without running it; raises where an option or value does not exist."""
    command, rest = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    command.make_context(words[0], rest)


def run(*words: str) -> str:
    """The output of a call, which must succeed, messages included."""
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with nothing but a preset that sets nothing, and a user without a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUDIOSR_NO_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "audiosr.toml").write_text("[preset.podcast]\n")
    return tmp_path


def record(path: str, seconds: float = 0.2) -> None:
    """A short recording, full-band, so that it is quick to process."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).standard_normal(round(8000 * seconds)) / 10
    soundfile.write(path, np.convolve(noise, np.ones(4) / 4), 8000)


def prepare(words: tuple[str, ...]) -> list[str]:
    """Create what a documented call reads, as short as possible; the call, with variables of the shell filled in."""
    options = {"-o", "--output", "--template", "--manifest", "--format", "--model", "--shard"}
    call = [word.replace("$SLURM_ARRAY_TASK_ID", "1") for word in words]
    for before, word in pairwise(call):
        if before == "--manifest":
            Path(word).parent.mkdir(parents=True, exist_ok=True)
        elif before in options or word.startswith("-"):
            continue
        elif word.startswith("@"):
            record("listed.wav")
            Path(word[1:]).write_text("listed.wav\n")
        elif "*" in word:
            record(word.replace("*", "one"))
        elif word.endswith((".wav", ".flac")):
            record(word)
        elif before in PROCESSING and word.rstrip("/"):
            record(f"{word}/sub/one.wav")
    return call


def test_pages_hold_commands() -> None:
    assert len(INVOCATIONS) > 50
    assert {words[0] for words in INVOCATIONS} == PROCESSING | {"train", "bench", "doctor", "models", "config"}


@pytest.mark.parametrize("words", INVOCATIONS, ids=" ".join)
def test_every_command_in_the_documentation_exists_with_its_options(words: tuple[str, ...]) -> None:
    parse(words)
    missing = [word for word in words if word.startswith("examples/") and not (ROOT / word).exists()]
    assert not missing


@pytest.mark.parametrize(
    "words",
    [
        words
        for words in INVOCATIONS
        if words[0] in PROCESSING and not NOT_HERE & set(words) and not any(".safetensors" in word for word in words)
    ],
    ids=" ".join,
)
def test_commands_of_the_documentation_run(words: tuple[str, ...]) -> None:
    if "--speakers 1" in " ".join(words) and not has_denoiser():
        pytest.skip("no bundled model separates speech from noise")
    run(*prepare(words))


def has_denoiser() -> bool:
    """Whether a bundled model is for one speaker."""
    files = [catalogue.folder() / catalogue.entries()[name]["file"] for name in catalogue.names("separate")]
    return any(catalogue.speakers_of(catalogue.metadata(path)["spec"]) == 1 for path in files)


def sessions() -> Iterator[tuple[str, str]]:
    """Every command of a session in the documentation, with what the page says it prints."""
    for page in PAGES:
        for block in doc_pages.code(page, "console"):
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, output = part.partition("\n")
                yield command, output


@pytest.mark.parametrize(("command", "output"), sorted(set(sessions())))
def test_sessions_print_what_the_page_shows(command: str, output: str, folder: Path) -> None:
    (folder / "examples").symlink_to(ROOT / "examples")
    printed = run(*command.split()[1:])
    assert sorted(printed.splitlines()) == sorted(output.splitlines())


@pytest.mark.filterwarnings("ignore::audiosr_cli.AudioSRWarning")  # of recordings that are noise
@pytest.mark.parametrize(
    "block", [block for page in PAGES if page.name != "adding-a-model.md" for block in doc_pages.code(page, "python")]
)
def test_python_of_the_documentation_runs(block: str, folder: Path) -> None:
    (folder / "examples").mkdir()
    for name in ("two_speakers.wav", "narrowband.wav"):
        record(f"examples/{name}")
    exec(block, {})


def fields(heading: str, level: int = 3) -> set[str]:
    """The fields that the page on pipelines lists under a heading."""
    cells = re.findall(r"^\| (`.*?) \|", doc_pages.sections(PIPELINES, level)[heading], re.M)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_field_of_every_event_is_documented(folder: Path) -> None:
    record("in.wav")
    Path("broken.wav").write_bytes(b"no audio")
    call = ("upsample", "in.wav", "broken.wav", "--json", "--manifest", "run.jsonl")
    result = CliRunner().invoke(app, [*call, "--quiet"])
    assert result.exit_code == 3
    printed = result.output + run("upsample", "in.wav", "--json", "--skip")
    printed += run("upsample", "in.wav", "--json", "--dry-run", "-o", "x")
    events = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    for name in ("start", "done", "failed", "skipped", "planned"):
        optional = {"at_most"} if name == "planned" else set()  # only with --speakers auto
        printed_fields = {key for event in events if event["event"] == name for key in event}
        assert printed_fields | optional == fields(f"`{name}`"), name
    rows = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    optional = {"speakers", "speakers_confidence", "kind", "kind_confidence", "stretches"}  # where there are any
    assert {key for row in rows for key in row} | optional == fields("The manifest: `--manifest`", 2)
