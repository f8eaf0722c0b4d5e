"""train/kit.py and run.sh: a kit trains in a fresh folder, within its time, and goes on when called again."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from corpora import RUN
from typer.testing import CliRunner

from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.cli.kit import app as kit_app
from audiosr_cli.cli.main import app
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.train import checkpoint
from audiosr_cli.train.kit import KitCall, read_kit, run_kit, table
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.pack import pack

# Compiling loops for a second of training does not pay.
BARE = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "AUDIOSR_NUMBA": "0"}
TINY = RUN.replace("minutes = 0.05", "minutes = 1000.0\nsave_every_min = 1e-6\nema = 0.9").replace("0.02", "1e3")


@pytest.fixture
def kit(speakers: Path) -> Path:
    """A kit of two runs, away from where it was packed."""
    (speakers / "one.toml").write_text(TINY)
    (speakers / "two.toml").write_text(TINY.replace('"tiny"', '"other"'))
    pack([speakers / "one.toml", speakers / "two.toml"], speakers, speakers / "kit", 20 << 20, (), lambda _: None)
    return Path(shutil.move(speakers / "kit", speakers / "elsewhere"))


def call(kit: Path, seconds: float = 1e9, **more: Any) -> KitCall:
    return KitCall(kit, kit / "out", kit, seconds, batch_size=None, **more)


def stop_at(steps: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Time is up after so many steps of each run; the list grows with every step."""
    calls: list[int] = []
    real = Trainer.train_step

    def counting(self: Trainer, batch: Any) -> dict[str, float]:
        calls.append(self.progress.step)
        if len(calls) % steps == 0:
            assert self.session.deadline is not None
            self.session.deadline.durations["step"] = 1e12  # another would take too long
        return real(self, batch)

    monkeypatch.setattr(Trainer, "train_step", counting)
    return calls


def test_runs_share_the_time_and_a_second_call_continues(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = []
    for module in ("kit", "session"):
        monkeypatch.setattr(f"audiosr_cli.train.{module}.process_age", lambda: 100.0)
    calls = stop_at(5, monkeypatch)
    init = Trainer.__init__

    def noting(self: Trainer, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **more)
        assert self.session.deadline is not None
        budgets.append(self.session.deadline._total)

    monkeypatch.setattr(Trainer, "__init__", noting)
    rows = run_kit(call(kit, 1101.0), lambda _: None)
    assert [round(budget) for budget in budgets] == [600, 1100]  # of 1000 s that are left after 100, and 1 for the end
    assert [row["run"] for row in rows] == ["one", "two"]
    assert calls == [0, 1, 2, 3, 4] * 2
    rows = run_kit(call(kit, 1101.0, names=("two.toml",)), lambda _: None)
    assert calls[10:] == [5, 6, 7, 8, 9]
    assert [(row["run"], row["steps"]) for row in rows] == [("two", 10)]
    for name in ("tiny", "other"):
        store.load_model(str(kit / "out" / f"{name}.safetensors"))
    assert sorted(path.name for path in (kit / "out").iterdir()) == [
        "other.safetensors",
        "report.json",
        "tiny.safetensors",
    ]


def test_the_table_says_speed_and_scores(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(60, monkeypatch)
    rows = run_kit(call(kit, names=("one",)), lambda _: None)
    assert rows == json.loads((kit / "out" / "report.json").read_text())
    assert rows[0]["steps_per_s"] > 0
    assert rows[0]["audio_hours_per_minute"] > 0
    assert {"first", "last", "best"} <= set(rows[0])
    lines = table(rows).splitlines()
    assert lines[0].split() == ["run", "batch", "steps/s", "hours/min", "steps", "hours", "minutes"]
    assert lines[1].split()[0] == "one"
    assert "SI-SDRi (dB)" in lines[4]


def test_a_run_that_fails_does_not_end_the_others(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(2, monkeypatch)
    (kit / "runs" / "one").mkdir(parents=True)
    (kit / "runs" / "one" / "state-0.pt").write_bytes(b"no state")
    rows = run_kit(call(kit), lambda _: None)
    assert "no state can be read" in rows[0]["error"]
    assert rows[1]["steps"] == 2
    assert "no state can be read" in table(rows)


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device"), RuntimeError("of torch")])
def test_no_kind_of_failure_ends_the_others(kit: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    runs = []

    def failing(config: Path, *_: Any) -> None:
        runs.append(config.stem)
        raise error

    monkeypatch.setattr("audiosr_cli.train.run.train", failing)
    assert all(row["error"] for row in run_kit(call(kit), lambda _: None))
    assert runs == ["one", "two"]


def test_incomplete_kits_are_refused(kit: Path) -> None:
    with pytest.raises(UsageError, match="no run 'three' in this kit; it has: one, two"):
        read_kit(kit, ["three"])
    path = next((kit / "data").rglob("*.flac"))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(TrainingError, match="is damaged"):
        read_kit(kit)
    path.unlink()
    with pytest.raises(TrainingError, match="is missing from the kit"):
        read_kit(kit)
    path.write_bytes(content)
    read_kit(kit)
    (kit / "MANIFEST.json").unlink()
    with pytest.raises(TrainingError, match=r"MANIFEST\.json: cannot be read"):
        read_kit(kit)


def shell(kit: Path, *arguments: str, python: str = sys.executable, **more: str) -> subprocess.CompletedProcess[str]:
    """``run.sh`` with next to no environment."""
    environment = BARE | {"HOME": "/nowhere", "PYTHON": python} | more
    return subprocess.run(
        ["bash", kit / "run.sh", *arguments], cwd="/", env=environment, capture_output=True, text=True, timeout=300
    )


def test_run_sh_continues_after_a_kill(kit: Path) -> None:
    """The kit's own code, from another folder, with nothing but PATH."""
    environment = BARE | {"PYTHON": sys.executable, "OUT": str(kit / "to")}
    command = ["bash", kit / "run.sh", "one", "--minutes", "10", "--batch-size", "2", "--export-every", "1"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert any('"valid"' in line for line in running.stderr)
        while not (kit / "runs" / "one" / "state-1.pt").exists():
            assert running.poll() is None
        running.kill()
    store.load_model(str(kit / "to" / "tiny.safetensors"))
    reached = checkpoint.load(kit / "runs" / "one")[0]["step"]
    assert reached > 0
    done = shell(kit, "one", "--minutes", "0.1", "--batch-size", "config", OUT=str(kit / "to"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[0] == "one"
    assert checkpoint.load(kit / "runs" / "one")[0]["step"] >= reached
    assert catalogue.metadata(kit / "to" / "tiny.safetensors")["note"]["step"] >= reached


def fake_python(folder: Path, missing: str) -> str:
    """A Python that finds no package of that name, unless it is in the kit."""
    (folder / "hidden").mkdir()
    code = f"""
import os, sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        installed = any(place.endswith("/site") and os.path.isdir(place + "/{missing}") for place in sys.path)
        if name == "{missing}" and not installed:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""
    (folder / "hidden" / "sitecustomize.py").write_text(code)
    return str(folder / "hidden")


def test_run_sh_installs_wheels_only_if_packages_are_missing(kit: Path, tmp_path: Path) -> None:
    hidden = fake_python(tmp_path, "typer")
    done = shell(kit, "--help", PYTHONPATH=hidden)
    assert done.returncode == 1
    python = ".".join(map(str, sys.version_info[:2]))
    assert re.search(rf"pip download -d wheels .*--python-version {python} .*{platform.machine()}", done.stderr)
    (kit / "wheels").mkdir()
    with zipfile.ZipFile(kit / "wheels" / "typer-9.9-py3-none-any.whl", "w") as wheel:
        import typer

        for path in Path(typer.__file__).parent.rglob("*.py"):
            wheel.write(path, f"typer/{path.relative_to(Path(typer.__file__).parent)}")
        facts = "typer-9.9.dist-info"
        wheel.writestr(f"{facts}/METADATA", "Metadata-Version: 2.1\nName: typer\nVersion: 9.9\n")
        wheel.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{facts}/RECORD", "")
    done = shell(kit, "--help", PYTHONPATH=hidden)
    assert done.returncode == 0, done.stderr
    assert "--minutes" in done.stdout
    assert (kit / "site" / "typer").is_dir()


def test_run_sh_names_a_python_without_torch(kit: Path, tmp_path: Path) -> None:
    done = shell(kit, PYTHONPATH=fake_python(tmp_path, "torch"))
    assert done.returncode == 1
    assert "has no torch; set PYTHON" in done.stderr


def test_the_page_has_all_options() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    kit_table, train_table = (
        page.split(f"| option of `{name}` |")[1].split("\n\n")[0] for name in ("run.sh", "audiosr train")
    )
    help_text = CliRunner().invoke(kit_app, ["--help"]).stdout
    assert set(re.findall(r"--[a-z][a-z-]+", kit_table)) == set(re.findall(r"--[a-z][a-z-]+", help_text)) - {"--help"}
    help_text = CliRunner().invoke(app, ["train", "--help"]).stdout
    assert set(re.findall(r"--[a-z][a-z-]+", train_table)) <= set(re.findall(r"--[a-z][a-z-]+", help_text))
