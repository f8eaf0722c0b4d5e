"""The commands from a shell: exit codes, messages, pipes, signals, and the files that they write."""

from __future__ import annotations

import io
import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import originals
import pytest
import soundfile
from conftest import EXAMPLES, HANG_S, denoiser, noise, tone
from running import COMMAND, audiosr, inside

from audiosr_cli.checkpoints import store


def report(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """The last event."""
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    soundfile.write(path, tone(66150, 300, 44100, 2).T, 44100, "PCM_24")
    return path


def test_separate_writes_one_file_per_speaker(stereo: Path, tmp_path: Path) -> None:
    done = audiosr("separate", stereo, "--speakers", 2, "-o", tmp_path / "out", "-v")
    assert done.returncode == 0, done.stderr
    names = done.stdout.decode().split()
    assert names == [str(tmp_path / "out" / f"talk_speaker{i}.wav") for i in (1, 2)]
    assert b"1.5 s of audio" in done.stderr
    for name in names:
        info = soundfile.info(name)
        assert (info.frames, info.samplerate, info.channels, info.subtype) == (66150, 44100, 2, "PCM_24")


def test_speakers_are_counted_on_request(tmp_path: Path) -> None:
    mix = EXAMPLES / "two_speakers.wav"
    planned = inside("separate", mix, "-s", "auto", "-o", tmp_path, "--dry-run", "--json")
    (event,) = map(json.loads, planned.stdout.splitlines())
    assert len(event["outputs"]) >= 3
    assert event["at_most"] is True
    assert b"speakers are counted when" in inside("separate", mix, "-s", "auto", "-o", tmp_path, "--dry-run").stderr
    done = inside("separate", mix, "-s", "auto", "-o", tmp_path, "--json")
    event = report(done)
    assert (event["speakers"], len(event["outputs"])) == (2, 2)
    assert event["speakers_confidence"] > 0.5
    assert b"two_speakers.wav: 2 speakers (confidence 0." in done.stderr


def test_residual_and_speakers_sum_to_the_input(stereo: Path, tmp_path: Path) -> None:
    done = inside("separate", stereo, "--residual", "-o", tmp_path, "--subtype", "float", "--json")
    assert done.returncode == 0, done.stderr
    row = report(done)
    assert [Path(name).name for name in row["outputs"]] == [
        "talk_speaker1.wav",
        "talk_speaker2.wav",
        "talk_residual.wav",
    ]
    whole = sum(soundfile.read(name, dtype="float32")[0] for name in row["outputs"])
    np.testing.assert_allclose(whole, soundfile.read(stereo, dtype="float32")[0], atol=1e-6)
    assert len(row["levels_db"]) == 3
    assert len(row["confidence"]) >= 1
    assert row["confidence_hop_s"] > 0


@pytest.mark.parametrize(("channels", "count"), [("each", 2), ("mix", 1), ("2", 1)])
def test_channels_are_processed_mixed_or_selected(channels: str, count: int, stereo: Path, tmp_path: Path) -> None:
    done = inside("separate", stereo, "--channels", channels, "-o", tmp_path, "--subtype", "float")
    assert done.returncode == 0, done.stderr
    wave = soundfile.read(stereo, dtype="float32", always_2d=True)[0]
    wanted = {"each": wave, "mix": wave.mean(1, keepdims=True), "2": wave[:, 1:]}[channels]
    soundfile.write(tmp_path / "same.wav", wanted, 44100, "FLOAT")
    assert inside("separate", tmp_path / "same.wav", "-o", tmp_path).returncode == 0
    for name in ("speaker1", "speaker2"):
        output = soundfile.read(tmp_path / f"talk_{name}.wav", always_2d=True)[0]
        assert output.shape == (66150, count)
        np.testing.assert_array_equal(output, soundfile.read(tmp_path / f"same_{name}.wav", always_2d=True)[0])


def test_silence_has_no_level_and_no_warning(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    row = report(inside("separate", tmp_path / "silent.wav", "-o", tmp_path / "out", "--json"))
    assert (row["levels_db"], row["warnings"]) == ([None, None], [])


def test_an_imported_model_separates(tmp_path: Path) -> None:
    shapes = json.loads((Path(__file__).parents[1] / "golden" / "importing.json").read_text())["ConvTasNet"]["shapes"]
    source = originals.save("ConvTasNet", shapes, tmp_path)
    target = tmp_path / "brought.safetensors"
    done = inside("models", "import", source, target)
    assert (done.returncode, done.stdout.decode()) == (0, f"{target}\n"), done.stderr
    assert inside("models", "import", source, target).returncode == 2
    mix = EXAMPLES / "two_speakers.wav"
    done = inside("separate", mix, "--speakers", 3, "--model", target, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    source.write_bytes(b"import os")
    done = inside("models", "import", source, target, "--overwrite")
    assert done.returncode == 1
    assert b"not a file of tensors" in done.stderr


def test_default_names_in_the_current_folder(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mix.wav", noise(4000).T, 8000)
    done = inside("upsample", "mix.wav", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"mix_48000.wav\n")
    assert soundfile.info(tmp_path / "mix_48000.wav").frames == 24000
    assert inside("separate-sr", "mix.wav", "--rate", 16000, cwd=tmp_path).returncode == 0
    assert soundfile.info(tmp_path / "mix_speaker2.wav").frames == 8000


def test_pipes_and_files_give_the_same_output(stereo: Path, tmp_path: Path) -> None:
    piped = audiosr("upsample", "-", "-o", "-", input=stereo.read_bytes())
    assert piped.returncode == 0, piped.stderr
    assert audiosr("upsample", "-", input=stereo.read_bytes()).stdout == piped.stdout
    assert inside("upsample", stereo, "-o", tmp_path / "a.wav").returncode == 0
    with soundfile.SoundFile(io.BytesIO(piped.stdout)) as output:
        wave = output.read(72000)
        assert (output.samplerate, output.channels, len(wave)) == (48000, 2, 72000)
    np.testing.assert_array_equal(wave, soundfile.read(tmp_path / "a.wav")[0])


def test_commands_can_be_chained_in_a_shell(stereo: Path, tmp_path: Path) -> None:
    tool = fork_server.shell_command()
    line = f"cat {stereo} | {tool} upsample - -o - | {tool} upsample - --rate 96000 --format flac -o {tmp_path}/b.flac"
    subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, timeout=HANG_S)
    info = soundfile.info(tmp_path / "b.flac")
    assert (info.frames, info.samplerate, info.subtype) == (144000, 96000, "PCM_24")


def test_the_cutoff_is_reported(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(16000).T, 16000)
    found = inside("upsample", "a.wav", "--json", cwd=tmp_path)
    assert report(found)["cutoff_hz"] == 8000
    assert b"a.wav: content ends at 8.0 kHz; frequencies above were restored" in found.stderr
    given = inside("upsample", "a.wav", "--json", "--cutoff", 3000, "-o", tmp_path / "b.wav", cwd=tmp_path)
    assert report(given)["cutoff_hz"] == 3000
    full = inside("upsample", "a_48000.wav", "--cutoff", 24000, "-o", tmp_path / "c.wav", cwd=tmp_path)
    assert b"nothing to restore" in full.stderr
    plain = inside("upsample", "a.wav", "--model", "none", "-o", tmp_path / "d.wav", cwd=tmp_path)
    assert (plain.returncode, soundfile.info(tmp_path / "d.wav").frames) == (0, 48000)
    assert b"content" not in plain.stderr


def test_json_prints_an_event_a_line(stereo: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    done = inside("upsample", stereo, tmp_path / "bad.wav", "--json", "-o", tmp_path / "out")
    start, good, bad = map(json.loads, done.stdout.splitlines())
    assert (start["event"], start["seconds"], start["outputs"]) == (
        "start",
        1.5,
        [str(tmp_path / "out/talk_48000.wav")],
    )
    assert (done.returncode, good["event"], good["frames_out"], bad["event"]) == (3, "done", 72000, "failed")
    assert "header ends" in bad["error"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["separate", "missing.wav"], 1, "missing.wav: cannot be opened: No such file"),
        (["separate", "{dir}/empty.wav"], 1, "is empty"),
        (
            ["separate", "{wav}", "--speakers", "4"],
            2,
            "no bundled model separates 4 speakers (available: ",
        ),
        (["upsample", "{wav}", "--rate", "0"], 2, "--rate 0"),
        (["upsample", "{wav}", "--model", "no"], 2, "no model 'no'"),
        (["upsample", "{wav}", "--overwrite", "--skip"], 2, "exclude"),
        (["upsample", "{wav}", "--format", "xyz"], 2, "--format xyz"),
        (["upsample", "{wav}", "--json", "-o", "-"], 2, "--json"),
        (["separate", "{wav}", "-o", "-"], 2, "takes one output"),
        (["upsample", "{wav}", "--subtype", "13"], 2, "--subtype 13: unknown; known: 16, 24, 32, float"),
        (["upsample", "{wav}", "--subtype", "float", "--format", "flac"], 2, "hint: use 16, 24\n"),
        (["separate", "{wav}", "--model", "spectrl3"], 2, "hint: did you mean 'spectral3'?\n"),
        (["separate", "{wav}", "--model", "no.safetensors"], 2, "no.safetensors: cannot be read: no such file\n"),
        (["separate", "{wav}", "--model", "{dir}"], 2, "is a folder; expected a .safetensors file"),
        (
            ["upsample", "{wav}", "--model", "spectral2"],
            2,
            "hint: models for upsample: spectral_bwe_large, spectral_bwe, audio_unet",
        ),
        (["upsample", "{wav}", "--rate", "48"], 2, "hint: did you mean 48k?\n"),
        (["upsample", "{wav}", "--device", "mps"], 2, "audiosr: --device mps: not supported yet; use --device cpu\n"),
        (["upsample", "{wav}", "--start", "2", "--end", "1:"], 2, "--end 1:: expected a time as seconds, mm:ss"),
        (["upsample", "{wav}", "--start", "2", "--end", "1"], 2, "--end 1 s: must be after --start 2 s"),
        (["upsample", "{wav}", "--start", "2"], 1, "--start 2 s is not before its end; it is 0.013 s long"),
        (["upsample", "{wav}", "--cutoff", "12"], 2, "--cutoff 12: must be at least 500 Hz"),
        (["upsample", "{wav}", "--spectrogram", "a.jpg"], 2, "ends in .png"),
        (["upsample", "{wav}", "--steps", "4"], 2, "--model audiosr_small"),
        (["upsample"], 2, "inputs"),
        (["no-such"], 2, "No such command"),
        (["bench"], 2, "--synthetic"),
        (["upsample", "-"], 1, "standard input: is empty"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "a.wav", noise(100).T, 8000)
    places = {"dir": tmp_path, "wav": tmp_path / "a.wav"}
    done = inside(*(argument.format(**places) for argument in arguments), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "empty.wav"]


@pytest.mark.parametrize("arguments", [["in.wav"], ["-i", "in.wav"], ["--input", "in.wav", "-o", "out.wav"]])
def test_a_recording_in_place_of_a_command_hints_at_the_commands(arguments: list[str], tmp_path: Path) -> None:
    done = inside(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        f"audiosr: {arguments[0]}: is not a command",
        "hint: did you mean: audiosr separate in.wav, or audiosr upsample in.wav",
    ]


@pytest.mark.parametrize("name", ["take 1", "-", "folder/", "nested/in"])
def test_whatever_could_be_a_recording_hints_at_the_commands(name: str, tmp_path: Path) -> None:
    (tmp_path / "take 1").touch()
    done = inside(name, cwd=tmp_path)
    assert done.returncode == 2
    assert f"hint: did you mean: audiosr separate {shlex.quote(name)}, or" in done.stderr.decode()


def test_an_option_of_other_tools_for_the_input_hints_at_the_argument() -> None:
    done = inside("separate", "-i", "in.wav")
    assert (done.returncode, done.stderr.decode()) == (
        2,
        "audiosr: -i: no such option\nhint: did you mean: audiosr separate IN.wav?\n",
    )


def test_short_options_and_rates_in_kilohertz(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(100).T, 8000)
    for rate in ("44.1k", "44.1kHz", "44100"):
        call = ("upsample", "a.wav", "-r", rate, "--model", "none", "--subtype", "24bit", "-o", "b.wav", "-y")
        done = inside(*call, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        written = soundfile.info(tmp_path / "b.wav")
        assert (written.samplerate, written.frames, written.subtype) == (44100, 551, "PCM_24")


def test_names_go_to_standard_output_beside_a_progress_bar(tmp_path: Path) -> None:
    """With a terminal on standard error only, rich must not take standard output."""
    soundfile.write(tmp_path / "a.wav", noise(800).T, 8000)
    master, slave = pty.openpty()
    command = [*COMMAND, "upsample", str(tmp_path / "a.wav"), "-o", str(tmp_path / "out")]
    done = fork_server.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, timeout=HANG_S)
    os.close(slave)
    talk = os.read(master, 100_000)
    os.close(master)
    assert done.stdout.decode() == f"{tmp_path}/out/a_48000.wav\n"
    assert b"a.wav" in talk


def test_closed_streams_and_full_devices(tmp_path: Path) -> None:
    """A full standard output is fault 77."""
    soundfile.write(tmp_path / "a.wav", noise(800).T, 8000)
    for device, code in (("/dev/full", 1), ("/dev/null", 0)):
        assert inside("upsample", tmp_path / "a.wav", "--overwrite", "-o", device).returncode == code
    for number, name, target, code in ((1, "stdout", "b.wav", 0), (2, "stderr", "b.wav", 0), (1, "stdout", "-", 2)):
        # What Python makes of a stream that is closed when it starts.
        program = f"import os, sys; os.close({number}); sys.{name} = sys.__{name}__ = None; "
        program += "from audiosr_cli.cli.main import main; main()"
        call = [sys.executable, "-c", program, "upsample", "a.wav", "--overwrite", "-o", target]
        done = fork_server.run(call, cwd=tmp_path, capture_output=True, timeout=HANG_S)
        assert done.returncode == code, (call, done.stderr)
        assert b"Traceback" not in done.stderr, call


def test_header_only_and_one_sample(tmp_path: Path) -> None:
    for frames in (0, 1):
        soundfile.write(tmp_path / "a.wav", noise(frames).T, 8000)
        done = inside("upsample", tmp_path / "a.wav", "-o", tmp_path / "b.wav", "--overwrite")
        assert done.returncode == 0
        assert (b"holds no samples" in done.stderr) == (frames == 0)
        assert soundfile.info(tmp_path / "b.wav").frames == 6 * frames


@pytest.mark.parametrize(("given", "kept"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_spin_briefly_unless_the_environment_says_otherwise(given: dict[str, str], kept: str) -> None:
    code = (
        "import atexit, os, sys; atexit.register(lambda: print(os.environ['GOMP_SPINCOUNT'])); sys.argv[1:] = ['-h']\n"
    )
    code += "from audiosr_cli.cli.main import main; main()"
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"} | given
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout.split()[-1].decode() == kept


def test_models_are_listed_and_verified() -> None:
    listed = json.loads(inside("models", "list", "--json").stdout)
    assert listed["spectral2"]["spec"]["sources"] == 2
    assert b"spectral2_narrow" in inside("models", "list").stdout
    done = inside("models", "verify")
    assert (done.returncode, done.stdout) == (0, "".join(f"{name}: ok\n" for name in listed).encode())
    assert inside("--version").stdout.startswith(b"audiosr 0.")


def test_the_list_says_which_models_separate_speech_from_the_rest(small_weights: Path) -> None:
    store.save_model(denoiser(), small_weights / "wave_u_net.safetensors", {"data": "none"})
    lines = inside("models", "list").stdout.decode().splitlines()
    assert "speech and rest" in lines[0]
    assert "sources 1" in lines[1]


@pytest.mark.parametrize("command", ["separate", "upsample", "separate-sr", "turns"])
def test_help_lists_options_in_groups(command: str) -> None:
    text = inside(command, "--help").stdout.decode()
    titles = [line.removesuffix(":") for line in text.splitlines() if line[:1].isalpha() and line.endswith(":")]
    turns = [] if command == "upsample" else ["Who speaks when"]
    assert titles == ["Input", "Output", *turns, "Model", "Batch", "Defaults", "Messages"]
    assert text.index("  INPUTS  ") < text.index("Output:") < text.index("--overwrite") < text.index("Model:")
    assert text.index("Batch:") < text.index("--resume") < text.index("Messages:") < text.index("--help")


def test_help_without_groups_lists_arguments_and_options() -> None:
    text = inside("models", "verify", "--help").stdout.decode()
    assert text.index("Arguments:") < text.index("  MODELS  ") < text.index("Options:") < text.index("--help")


def test_the_list_of_commands_shows_whole_descriptions() -> None:
    commands = inside("--help").stdout.decode().split("Commands:")[1]
    assert commands.count("...") <= 1  # `train`
