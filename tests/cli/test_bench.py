"""`audiosr bench` from a shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import EXAMPLES, tone
from typer.testing import CliRunner, Result

from audiosr_cli.bench import speed
from audiosr_cli.bench.peers import PEERS
from audiosr_cli.cli.main import app
from audiosr_cli.errors import UsageError


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_speed_and_memory_as_json() -> None:
    done = bench("--synthetic", 2, "--models", "audio_unet", "--runs", 1, "--memory", "--lengths", 1, "--json")
    assert done.exit_code == 0, done.output
    where, machine, speed, memory = map(json.loads, done.stdout.splitlines())
    assert (where["kind"], machine["kind"]) == ("environment", "machine")
    assert (speed["model"], speed["audio_s"]) == ("audio_unet", 2.0)
    assert speed["cpu_s_per_s"] > 0
    assert (memory["kind"], memory["audio_s"]) == ("memory", 1.0)
    assert memory["peak_rss_mb"] > 100
    assert min(machine["float32"], machine["bf16"], machine["threads"]) > 0


@pytest.fixture
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measure_machine", lambda *_: speed.Machine(100.0, 400.0, 2))


def test_a_table_ends_with_the_environment(known_machine: None) -> None:
    done = bench(EXAMPLES / "narrowband.wav", "--models", "spectral_bwe", "--runs", 1)
    assert done.exit_code == 0, done.output
    assert all(
        text in done.stdout for text in ("real-time factor", "× spectral_bwe", "roofline: 100 GFLOP/s", "cores; torch")
    )


def test_quality_as_markdown(tmp_path: Path) -> None:
    folder = tmp_path / "references"
    folder.mkdir()
    soundfile.write(folder / "a.wav", tone(8000, 3000, 16000)[0], 16000)
    done = bench("--quality", folder, "--from", "8000,8000", "--markdown")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("| soxr | 8000 → 16000 Hz | 1 | ") == 1
    assert "| audiosr upsample | 8000 → 16000 Hz | 1 | " in done.stdout


def test_failures_are_printed_and_change_the_exit_code(known_machine: None, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    real = Path(__file__).parents[2] / "weights" / "audio_unet.safetensors"
    broken.write_bytes(real.read_bytes()[:-100])
    done = bench("--synthetic", 1, "--models", broken, "--runs", 1)
    assert done.exit_code == 1
    assert f"audiosr: {broken}: " in done.stderr
    done = bench("--synthetic", 1, "--models", broken, "--against", "soxr", "--runs", 1)
    assert done.exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to measure"),
        (["a.wav", "--synthetic", 1], "a recording and --synthetic exclude each other"),
        (["--synthetic", -1], "must be above 0 seconds"),
        (["--synthetic", "nan"], "must be above 0 seconds"),
        (["--synthetic", "inf"], "must be above 0 seconds"),
        (["--synthetic", 1, "--json", "--markdown"], "exclude each other"),
        (["--memory", "--lengths", "1,x"], "--lengths 1,x: expected numbers above 0"),
        (["--memory", "--lengths", "1,nan"], "--lengths 1,nan: expected numbers above 0"),
        (["--memory", "--lengths", "inf"], "--lengths inf: expected numbers above 0"),
        (["--synthetic", 1, "--models", "speaker_encoder"], "cannot process recordings on its own"),
        (["--synthetic", 1, "--against", "nobody"], "unknown peer"),
        (["--synthetic", 1, "--picture", "a.jpg"], "--picture a.jpg: expected a name that ends in .png"),
    ],
)
def test_invalid_calls_are_refused(arguments: list[object], message: str) -> None:
    done = bench(*arguments)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_a_missing_peer_is_a_usage_error() -> None:
    code = (
        "import sys, audiosr_cli.bench.peers as peers; peers.find_spec = lambda name: None; "
        "from audiosr_cli.cli.main import main; main()"
    )
    call = [sys.executable, "-c", code, "bench", "--synthetic", "1", "--against", "asteroid-dprnn"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "audiosr: --against asteroid-dprnn: asteroid is not installed; pip install asteroid\n"


def test_help_names_every_peer() -> None:
    message = " ".join(bench("--help").stdout.split()).replace("- ", "-")
    assert all(name in message for name in PEERS)
