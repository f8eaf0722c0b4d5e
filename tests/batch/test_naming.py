"""Names of outputs, and problems found before work starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiosr_cli.audio.formats import FORMATS
from audiosr_cli.batch.inputs import Item
from audiosr_cli.batch.naming import Naming, check, distinguish
from audiosr_cli.errors import OutputError, UsageError

TWO = "{stem}_{speaker}.{ext}"
NAMES = ("speaker1", "speaker2", "residual")


def test_names_follow_template_and_output(tmp_path: Path) -> None:
    item = Item("in/talk.mp3")
    assert Naming(None, "{stem}_{rate}.{ext}").targets(item, NAMES[:1], 48000) == [Path("talk_48000.wav")]
    assert Naming(None, TWO, "flac").targets(item, NAMES[:2], 8000)[0] == Path("talk_speaker1.flac")
    assert Naming("x/new.flac", TWO).targets(item, NAMES[:1], 8000) == [Path("x/new.flac")]
    assert Naming("x/new.flac", TWO).targets(item, NAMES[:2], 8000)[1] == Path("x/new_speaker2.flac")
    assert Naming("-", TWO).targets(item, NAMES[:1], 8000) == ["-"]
    assert Naming("out.d", TWO).to_file is False
    (tmp_path / "folder.wav").mkdir()
    assert Naming(str(tmp_path / "folder.wav"), TWO).to_file is False


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{stem.__class__}", "unknown field"),
        ("{home}", "unknown field"),
        ("../{stem}.wav", "stay inside"),
        ("/tmp/{stem}.wav", "stay inside"),
        ("{stem", "expected"),
        ("{stem:q}", "format code"),
    ],
)
def test_invalid_templates_are_refused(template: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Naming(None, template)


@pytest.mark.parametrize(
    ("output", "inputs", "template", "sources", "message"),
    [
        ("-", ["a.wav"], TWO, 2, "takes one output"),
        ("-", ["a.wav", "b.wav"], TWO, 1, "takes one output"),
        ("x.wav", ["a.wav", "b.wav"], TWO, 1, "one file for 2 inputs"),
        (None, ["a.wav"], "{stem}.wav", 2, "need the field {speaker}"),
        (None, ["1/a.wav", "2/a.wav"], TWO, 2, "would both be written to a_speaker1.wav"),
        (None, ["in/a.wav", "./in/a.wav"], TWO, 2, "in/a.wav: is given more than once"),
    ],
)
def test_conflicting_outputs_are_found_before_work(
    output: str | None, inputs: list[str], template: str, sources: int, message: str
) -> None:
    naming = Naming(output, template)
    with pytest.raises(UsageError, match=message):
        check([Item(name) for name in inputs], naming, NAMES[:sources])


def stems(naming: Naming, *names: str) -> list[str]:
    """Return what the outputs of recordings are named after."""
    items = distinguish([Item(name) for name in names], naming, NAMES[:2])
    check(items, naming, NAMES[:2])
    return [str(naming.targets(item, NAMES[:2], 8000)[0]).removesuffix("_speaker1.wav") for item in items]


def test_suffixes_tell_recordings_of_the_same_name_apart() -> None:
    naming = Naming(None, TWO)
    assert stems(naming, "take1.wav", "take1.mp3", "take2.mp3") == ["take1_wav", "take1_mp3", "take2"]
    assert stems(naming, "take1.mp3", "take1.wav") == ["take1_mp3", "take1_wav"]  # in any order
    assert stems(naming, "1/take1.wav", "2/take1.flac") == ["take1_wav", "take1_flac"]
    assert stems(naming, "take1", "take1.wav") == ["take1", "take1_wav"]
    assert stems(naming, "-", "stdin.wav") == ["stdin", "stdin_wav"]
    assert stems(naming, "a.b.wav", "a.b.mp3") == ["a.b_wav", "a.b_mp3"]


def test_a_new_name_does_not_meet_another_recording() -> None:
    names = ["a.wav", "a.mp3", "a_mp3.flac", "a_mp3_flac.ogg"]
    assert stems(Naming(None, TWO), *names) == ["a_wav", "a_mp3", "a_mp3_flac", "a_mp3_flac_ogg"]


def test_names_are_told_apart_only_where_they_clash(tmp_path: Path) -> None:
    items = [Item("in/a.wav"), Item("in/sub/a.mp3", Path("sub"))]
    assert distinguish(items, Naming(None, TWO), NAMES[:2]) == items
    one = Naming(str(tmp_path / "x.wav"), TWO)
    assert distinguish([Item("a.wav"), Item("a.mp3")], one, NAMES[:2]) == [Item("a.wav"), Item("a.mp3")]
    with pytest.raises(UsageError, match=r"1/a\.wav and 2/a\.wav would both be written to a_wav_speaker1"):
        stems(Naming(None, TWO), "1/a.wav", "2/a.wav", "3/a.mp3")
    with pytest.raises(UsageError, match=r"a\.wav and a\.mp3 would both be written to speaker1"):
        stems(Naming(None, "{speaker}.{ext}"), "a.wav", "a.mp3")


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        check([Item("a.wav")], Naming(str(tmp_path / "file"), TWO), NAMES[:2])


@pytest.mark.parametrize("container", FORMATS)
def test_the_name_of_every_format_is_a_file_and_never_a_folder(container: str, tmp_path: Path) -> None:
    output = tmp_path / f"x.{container}"
    naming = Naming(str(output), TWO)
    assert (naming.to_file, naming.output_container) == (True, container)
    assert naming.targets(Item("a.wav"), NAMES[:1], 8000) == [output]
    check([Item("a.wav")], naming, NAMES[:1])


def test_the_name_of_a_format_that_cannot_be_written_is_no_folder(tmp_path: Path) -> None:
    output = tmp_path / "x.au"
    with pytest.raises(UsageError, match=r"x\.au: \.au files cannot be written; known: wav, flac"):
        check([Item("a.wav")], Naming(str(output), TWO), NAMES[:2])
    output.mkdir()
    check([Item("a.wav")], Naming(str(output), TWO), NAMES[:2])
    check([Item("a.wav")], Naming(str(tmp_path / "take.1"), TWO), NAMES[:2])


def test_format_and_suffix_must_agree() -> None:
    assert Naming(None, "{stem}.flac").output_container == "flac"
    with pytest.raises(UsageError, match="name, which says wav"):
        Naming("a.wav", TWO, "flac")
    check([Item("a.wav")], Naming(None, "{stem}_{speaker:>10}.{ext}"), NAMES[:2])


def test_fields_cannot_lead_out_of_the_folder() -> None:
    for source, template in (("...wav", "{stem}/{speaker}.wav"), ("a.wav", "{stem:/>4}"), ("..wav", "{stem}")):
        with pytest.raises(UsageError, match="must stay inside"):
            Naming(None, template).targets(Item(source), NAMES[:1], 8000)
    with pytest.raises(UsageError, match="must stay inside"):
        Naming(None, "")


@pytest.mark.parametrize("letter", ["x", "ö", "語"])
def test_long_names_are_shortened_to_255_bytes(letter: str) -> None:
    size = len(letter.encode())
    stems = [letter * (250 // size), letter * (250 // size - 1) + "y" * size]
    names = [[str(t) for t in Naming(None, TWO).targets(Item(f"{stem}.wav"), NAMES[:2], 8000)] for stem in stems]
    assert len({name for pair in names for name in pair}) == 4
    assert all(255 - size < len(name.encode()) <= 255 for pair in names for name in pair)
    assert names[0][0].endswith("_speaker1.wav")
    assert Naming(None, "{stem}/{speaker}.wav").targets(Item("a" * 255), NAMES[:1], 8000) == [
        Path("a" * 255, "speaker1.wav")
    ]


def test_links_below_the_output_folder_are_not_followed_out(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path)
    (tmp_path / "out" / "in").symlink_to(tmp_path / "out")
    naming = Naming(str(tmp_path / "out"), TWO)
    with pytest.raises(OutputError, match="leads out of the output folder"):
        naming.check_links(tmp_path / "out" / "sub" / "a.wav")
    naming.check_links(tmp_path / "out" / "in" / "a.wav")
    (tmp_path / "out" / "a.wav").symlink_to("/dev/null")
    with pytest.raises(OutputError, match="is not a file"):
        naming.check_links(tmp_path / "out" / "a.wav")


def test_names_that_differ_in_case_conflict_if_the_file_system_ignores_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, naming = [Item("1/a.wav"), Item("2/A.wav")], Naming(str(tmp_path), "{stem}.{ext}")
    check(items, naming, NAMES[:1])
    monkeypatch.setattr("audiosr_cli.batch.naming._ignores_case", lambda folder: True)
    with pytest.raises(UsageError, match=r"1/a\.wav and 2/A\.wav would both be written to"):
        check(items, naming, NAMES[:1])
    apart = distinguish([Item("1/a.wav"), Item("2/A.mp3")], naming, NAMES[:1])
    assert [item.stem for item in apart] == ["a_wav", "A_mp3"]
