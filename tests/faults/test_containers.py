"""Faults 1 to 33 and 38: containers that lie, are cut short, or are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile import RATE, Run, chunk, content, fmt, inside, measured, riff, samples

WAVE = samples(3000)
LONG = samples(60_000)


def wav(size: int | None = None, data: bytes = WAVE.tobytes(), **form: int) -> bytes:
    return riff(chunk(b"fmt ", fmt(**form)), chunk(b"data", data, size))


def encoded(kind: str, subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, LONG.T, RATE, subtype, format=kind)
    return stream.getvalue()


def flac(total: int | None = None) -> bytearray:
    """FLAC whose header claims ``total`` frames; 0 is unknown."""
    output = bytearray(encoded("FLAC"))
    if total is not None:
        packed = int.from_bytes(output[18:26], "big") >> 36 << 36 | total
        output[18:26] = packed.to_bytes(8, "big")
    return output


def damaged_flac() -> bytes:
    output = flac()
    output[len(output) // 2] ^= 8
    return bytes(output)


def half(output: bytes) -> bytes:
    return output[: len(output) // 2]


REFUSED = {  # name: what it holds, what is said
    "001_empty": (b"", "is empty; expected an audio file"),
    "002_ten_bytes": (b"RIFF\0\0\0\0WA", "the WAV header ends after 10 of 12 bytes"),
    "003_text": (b"There is nothing to hear in this text.\n" * 50, "cannot be read as audio"),
    "004_random": (np.random.default_rng(4).bytes(5000), "cannot be read as audio"),
    "006_no_fmt": (riff(chunk(b"data", WAVE.tobytes())), "without a 'fmt' chunk"),
    "016_no_channels": (wav(channels=0), "0 channels; the number must be between 1 and 64"),
    "017_channels": (wav(channels=65535), "65535 channels; the number must be between 1 and 64"),
    "018_channels": (wav(channels=1024), "1024 channels; the number must be between 1 and 64"),
    "019_rate": (wav(rate=0), "the sample rate is 0 Hz; it must be between 1000 and 768000 Hz"),
    "020_rate": (wav(rate=2**31), "the sample rate is 2147483648 Hz; it must be between 1000 and 768000 Hz"),
    "021_rate_low": (wav(rate=1), "the sample rate is 1 Hz; it must be between 1000 and 768000 Hz"),
    "021_rate_high": (wav(rate=2 * 10**9), "the sample rate is 2000000000 Hz; it must be"),
    "022_no_bits": (wav(bits=0), "0-bit samples are not supported; expected PCM"),
    "022_bits": (wav(bits=64), "64-bit samples are not supported; expected PCM"),
    "026_list": (riff(chunk(b"LIST", b"abc", 0x7FFFFFFF)), "a WAV chunk claims 21"),
    "038_m4a": (
        b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(16) + b"\0\0\7\xd0mdat" + bytes(1992),
        "cannot be read as audio: its index (the 'moov' box) is missing",
    ),
}
GOOD = {  # name: what it holds, the samples that come out (None: a prefix), what is warned of
    "007_header_only": (wav(data=b""), WAVE[:, :0], "holds no samples"),
    "010_open": (wav(0xFFFFFFFF), WAVE, ""),
    "011_open": (wav(0x7FFFF000), WAVE, ""),
    "012_zero": (wav(0), WAVE, "there are samples, but none according to the header"),
    "013_too_large": (wav(8000), WAVE, "ends 1000 frames earlier than its header says"),
    "014_too_small": (wav(2000), WAVE[:, :1000], "more data follow than its header says"),
    "015_odd": (wav(6000, WAVE.tobytes()[:-1]), WAVE[:, :-1], "ends within a frame"),
    "023_12_bits": (wav(bits=12), WAVE, ""),
    "024_align_huge": (wav(block=65535), WAVE, ""),
    "024_align_none": (wav(block=0), WAVE, ""),
    "027_cut_flac": (half(encoded("FLAC")), None, "damaged at"),
    "028_bad_flac": (damaged_flac(), None, "damaged at"),
    "029_unknown_flac": (bytes(flac(0)), LONG, ""),
    "030_lying_flac": (bytes(flac(2**36 - 1)), LONG, "of the 68719476735 frames in its header"),
    "031_cut_ogg": (half(encoded("OGG")), None, "the end of the file is missing"),
    "031_cut_opus": (half(encoded("OGG", "OPUS")), None, "the end of the file is missing"),
    "032_cut_mp3": (half(encoded("MP3")), None, "s in its header"),
    "033_really_flac": (encoded("FLAC"), LONG, ""),
}
STRICT = [name for name, (_, _, warned) in GOOD.items() if warned]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("containers")
    for name, (held, *_) in (REFUSED | GOOD).items():
        (output / f"{name}.wav").write_bytes(held)
    soundfile.write(output / "025_rifx.wav", LONG.T, RATE, "PCM_24", endian="BIG", format="WAV")
    return output


@pytest.fixture(scope="module")
def done(folder: Path) -> Run:
    """All of them through the command, at their own rate and without a model, so that samples stay what they are."""
    options = ("--model", "none", "--rate", RATE, "-o", folder / "out")
    return measured(folder, "upsample", *sorted(folder.glob("*.wav")), *options)


@pytest.fixture(scope="module")
def strict(folder: Path) -> Run:
    names = [folder / f"{name}.wav" for name in (*STRICT, "010_open")]
    return inside("upsample", *names, "--model", "none", "--rate", RATE, "--strict", "-o", folder / "strict")


def check(number: int, folder: Path, done: Run) -> None:
    """Every file of a fault was refused, or came out, as it has to."""
    assert done.code == 3
    names = [name for name in (REFUSED | GOOD) if name.startswith(f"{number:03}")]
    assert names
    for name in names:
        path, output = folder / f"{name}.wav", folder / "out" / f"{name}_{RATE}.wav"
        if name in REFUSED:
            assert REFUSED[name][1] in done.message_about(path)
            assert not output.exists()
            continue
        _, expected, warned = GOOD[name]
        lines = [line for line in done.stderr.splitlines() if f"{name}.wav" in line and "was not raised" not in line]
        assert any(warned in line for line in lines) if warned else not lines, lines
        assert len(lines) == len(set(lines))
        if expected is not None:
            np.testing.assert_array_equal(content(output), expected)
        else:
            frames = content(output).shape[1]
            assert 0.2 * LONG.shape[1] < frames < 0.7 * LONG.shape[1]
            if "flac" in name:
                np.testing.assert_array_equal(content(output), LONG[:, :frames])


def check_strict(number: int, folder: Path, strict: Run) -> None:
    assert strict.code == 3  # one of them is whole
    names = [name for name in STRICT if name.startswith(f"{number:03}")]
    assert names
    for name in names:
        assert strict.message_about(folder / f"{name}.wav").endswith("without --strict this is a warning")
        assert not (folder / "strict" / f"{name}_{RATE}.wav").exists()
    assert sorted(path.name for path in (folder / "strict").iterdir()) == [f"010_open_{RATE}.wav"]


def test_001_an_empty_file(folder: Path, done: Run) -> None:
    check(1, folder, done)


def test_002_a_header_of_ten_bytes(folder: Path, done: Run) -> None:
    check(2, folder, done)


def test_003_text(folder: Path, done: Run) -> None:
    check(3, folder, done)


def test_004_random_bytes(folder: Path, done: Run) -> None:
    check(4, folder, done)


def test_005_a_folder_is_walked_and_an_empty_one_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "full.wav").mkdir()
    (folder / "full.wav" / "a.wav").write_bytes(wav())
    options = ("--model", "none", "-o", folder / "walked")
    refused = inside("upsample", folder / "empty", *options)
    assert (refused.code, refused.stderr) == (1, f"audiosr: {folder}/empty: no audio files in this folder\n")
    assert inside("upsample", folder / "full.wav", *options).code == 0
    assert (folder / "walked" / "a_48000.wav").exists()


def test_006_no_format_chunk(folder: Path, done: Run) -> None:
    check(6, folder, done)


def test_007_a_header_without_samples(folder: Path, done: Run, strict: Run) -> None:
    check(7, folder, done)
    check_strict(7, folder, strict)


@pytest.fixture(scope="module")
def short(folder: Path) -> Path:
    """No sample, one, and fewer than a window, through models."""
    paths = []
    for frames in (0, 1, 100):
        paths.append(folder / f"short{frames}" / f"{frames}.wav")
        paths[-1].parent.mkdir()
        soundfile.write(paths[-1], samples(frames).T, RATE)
    for command in (("upsample", "--cutoff", 4000), ("separate",)):
        output = inside(*command, *paths, "-o", folder / "short")
        assert output.code == 0, output.stderr
        assert "holds no samples" in (output.message_about(paths[0]) if "separate" in command else output.stderr)
    return folder / "short"


def test_007_008_one_sample_makes_as_many_as_the_ratio(short: Path) -> None:
    for frames in (0, 1):
        assert content(short / f"{frames}_48000.wav").shape == (1, 3 * frames)
        assert content(short / f"{frames}_speaker2.wav").shape == (1, frames)


def test_009_shorter_than_a_window(short: Path) -> None:
    assert content(short / "100_48000.wav").shape == (1, 300)
    assert content(short / "100_speaker2.wav").shape == (1, 100)


def test_010_open_sizes(folder: Path, done: Run) -> None:
    check(10, folder, done)


def test_011_open_sizes_of_sox(folder: Path, done: Run) -> None:
    check(11, folder, done)


def test_012_data_size_zero_with_bytes_after(folder: Path, done: Run, strict: Run) -> None:
    check(12, folder, done)
    check_strict(12, folder, strict)


def test_013_data_size_too_large(folder: Path, done: Run, strict: Run) -> None:
    check(13, folder, done)
    check_strict(13, folder, strict)


def test_014_data_size_too_small(folder: Path, done: Run, strict: Run) -> None:
    check(14, folder, done)
    check_strict(14, folder, strict)


def test_015_cut_within_a_frame(folder: Path, done: Run, strict: Run) -> None:
    check(15, folder, done)
    check_strict(15, folder, strict)


def test_016_no_channels(folder: Path, done: Run) -> None:
    check(16, folder, done)


def test_017_65535_channels(folder: Path, done: Run) -> None:
    check(17, folder, done)


def test_018_1024_channels(folder: Path, done: Run) -> None:
    check(18, folder, done)


def test_019_a_rate_of_0(folder: Path, done: Run) -> None:
    check(19, folder, done)


def test_020_a_rate_of_2_to_the_31(folder: Path, done: Run) -> None:
    check(20, folder, done)


def test_021_rates_beyond_the_limits(folder: Path, done: Run) -> None:
    check(21, folder, done)


def test_022_0_and_64_bits(folder: Path, done: Run) -> None:
    check(22, folder, done)


def test_023_12_bits(folder: Path, done: Run) -> None:
    check(23, folder, done)


def test_024_block_alignment_that_lies(folder: Path, done: Run) -> None:
    check(24, folder, done)


def test_025_big_endian(folder: Path, done: Run) -> None:
    output = folder / "out" / f"025_rifx_{RATE}.wav"
    assert soundfile.info(output).subtype == "PCM_24"
    np.testing.assert_array_equal(content(output), LONG)


def test_026_a_chunk_of_2_gib_that_is_not_there(folder: Path, done: Run) -> None:
    check(26, folder, done)
    assert done.peak < 700  # of which torch is 300


def test_027_a_truncated_flac(folder: Path, done: Run, strict: Run) -> None:
    check(27, folder, done)
    check_strict(27, folder, strict)


def test_028_a_flac_that_is_damaged_in_the_middle(folder: Path, done: Run, strict: Run) -> None:
    check(28, folder, done)
    check_strict(28, folder, strict)


def test_029_a_flac_of_unknown_length(folder: Path, done: Run) -> None:
    check(29, folder, done)


def test_030_a_flac_that_claims_2_to_the_36_frames(folder: Path, done: Run, strict: Run) -> None:
    check(30, folder, done)
    check_strict(30, folder, strict)
    assert done.peak < 700


def test_031_truncated_ogg(folder: Path, done: Run, strict: Run) -> None:
    check(31, folder, done)
    check_strict(31, folder, strict)


def test_032_a_truncated_mp3(folder: Path, done: Run, strict: Run) -> None:
    check(32, folder, done)
    check_strict(32, folder, strict)


def test_032_noise_in_an_mp3_is_silence_and_an_error_under_strict(tmp_path: Path) -> None:
    damaged = bytearray(encoded("MP3"))
    middle = len(damaged) // 2
    damaged[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    (tmp_path / "a.mp3").write_bytes(damaged)
    arguments = ("upsample", tmp_path / "a.mp3", "--model", "none", "--rate", RATE, "-o")
    done, strict = inside(*arguments, tmp_path / "out.wav"), inside(*arguments, tmp_path / "strict.wav", "--strict")
    assert (done.code, content(tmp_path / "out.wav").shape) == (0, LONG.shape)
    assert "damaged at 1." in done.stderr
    assert (strict.code, (tmp_path / "strict.wav").exists()) == (1, False)
    assert "damaged at 1." in strict.stderr


def test_033_the_wrong_extension(folder: Path, done: Run) -> None:
    check(33, folder, done)


def test_038_an_m4a_without_its_index(folder: Path, done: Run) -> None:
    check(38, folder, done)
