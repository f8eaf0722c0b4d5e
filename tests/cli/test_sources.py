"""cli/settings.py and cli/sources.py: options from presets, variables and files, and which of them counts."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from config_places import Places

from audiosr_cli.cli import sources
from audiosr_cli.cli.settings import COMMANDS, settings
from audiosr_cli.errors import UsageError

DOCS = Path(__file__).parents[2] / "docs"


def values(command: str = "separate", **arguments: Any) -> dict[str, Any]:
    return {name: value.value for name, value in sources.resolve(command, **arguments).items()}


def origin(name: str, command: str = "separate", **arguments: Any) -> str:
    return sources.resolve(command, **arguments)[name].source


def test_without_files_and_variables_nothing_is_set(places: Places) -> None:
    assert values() == {}


def test_stronger_sources_replace_weaker_ones(places: Places) -> None:
    places.write(user="speakers = 5\nbatch = 5\nthreads = 5\njobs = 5")
    assert values() == {"speakers": 5, "batch": 5, "threads": 5, "jobs": 5}
    places.write("speakers = 4\nbatch = 4\nthreads = 4\n[preset.p]\nspeakers = 2", "speakers = 5\njobs = 5")
    assert values() == {"speakers": 4, "batch": 4, "threads": 4, "jobs": 5}
    places.write((places.folder / "audiosr.toml").read_text(), "speakers = 5\njobs = 5", SPEAKERS="3", BATCH="3")
    assert values() == {"speakers": 3, "batch": 3, "threads": 4, "jobs": 5}
    assert values(preset="p") == {"speakers": 2, "batch": 3, "threads": 4, "jobs": 5}
    assert values(preset="p", arguments={"speakers": 1, "jobs": 1}) == {"batch": 3, "threads": 4}


def test_speakers_are_a_number_or_auto(places: Places) -> None:
    places.write("speakers = 'auto'")
    assert values() == {"speakers": "auto"}
    places.write(SPEAKERS="auto")
    assert values("separate-sr") == {"speakers": "auto"}
    places.write(SPEAKERS="3")
    assert values() == {"speakers": 3}


def test_each_value_knows_where_it_comes_from(places: Places) -> None:
    places.write("threads = 4\n[separate]\nbatch = 4\n[preset.p.separate]\nmodel = 'm'", "jobs = 5", SPEAKERS="3")
    found = {name: value.source for name, value in sources.resolve("separate", preset="p").items()}
    assert found == {
        "threads": "./audiosr.toml",
        "batch": "./audiosr.toml [separate]",
        "model": "./audiosr.toml [preset.p.separate]",
        "jobs": str(places.user),
        "speakers": "$AUDIOSR_SPEAKERS",
    }


def test_what_is_set_for_a_command_counts_before_what_is_set_for_all(places: Places) -> None:
    places.write("rate = '16k'\n[upsample]\nrate = '44.1k'", SPEAKERS="2", SEPARATE_SR_SPEAKERS="3")
    assert (values("upsample")["rate"], values("separate-sr")["rate"]) == (44100, 16000)
    assert (values("separate")["speakers"], values("separate-sr")["speakers"]) == (2, 3)
    assert "rate" not in values("separate")
    assert "speakers" not in values("upsample")


def test_a_stronger_source_counts_even_if_it_is_for_all_commands(places: Places) -> None:
    places.write("[separate]\nspeakers = 4", SPEAKERS="3")
    assert values()["speakers"] == 3


def test_a_choice_of_what_happens_to_existing_outputs_replaces_weaker_ones(places: Places) -> None:
    places.write(user="skip = true\nquiet = true")
    assert values() == {"skip": True, "quiet": True}
    assert values(arguments={"overwrite": True}) == {"quiet": True}
    assert values(arguments={"overwrite": False}) == {"skip": True, "quiet": True}
    places.write(user="skip = true", OVERWRITE="1")
    assert values() == {"overwrite": True}


def test_a_model_and_a_fast_quality_replace_each_other(places: Places) -> None:
    """Both together would be an error."""
    places.write(user="[separate]\nmodel = 'm'\nquality = 'standard'")
    assert values(arguments={"quality": "fast"}) == {}
    assert values(arguments={"quality": "best"}) == {"model": "m"}
    assert values() == {"model": "m", "quality": "standard"}
    places.write(user="quality = 'fast'")
    assert values(arguments={"model": "m"}) == {}
    assert values(arguments={"model": None}) == values() == {"quality": "fast"}
    places.write("[separate]\nmodel = 'm'", "quality = 'fast'")
    assert values() == {"model": "m"}
    places.write(user="[separate]\nmodel = 'm'", QUALITY="fast")
    assert values() == {"quality": "fast"}
    places.write(user="quality = 'best'")
    assert values(arguments={"model": "m"}) == {"quality": "best"}


def test_a_model_and_counted_speakers_replace_each_other(places: Places) -> None:
    """Both together would be an error."""
    places.write(user="speakers = 'auto'")
    assert values(arguments={"model": "m"}) == {}
    assert values() == {"speakers": "auto"}
    places.write(user="[separate]\nmodel = 'm'")
    assert values(arguments={"speakers": "auto"}) == {}
    assert values(arguments={"speakers": 3}) == {"model": "m"}


def test_presets_of_both_files_are_joined(places: Places) -> None:
    places.write("[preset.p]\nbatch = 1", "[preset.p]\nbatch = 2\njobs = 2\n[preset.p.separate]\nspeakers = 3")
    assert values(preset="p") == {"batch": 1, "jobs": 2, "speakers": 3}
    assert values("upsample", preset="p") == {"batch": 1, "jobs": 2}
    places.write("[preset.q]\nbatch = 1", PRESET="q")
    assert values() == {"batch": 1}


def test_an_unknown_preset_gets_the_nearest_one(places: Places) -> None:
    places.write("[preset.podcast]\nbatch = 1")
    with pytest.raises(UsageError, match=r"^--preset podcats: no such preset; known: podcast") as caught:
        values(preset="podcats")
    assert caught.value.hint == "did you mean podcast?"
    with pytest.raises(UsageError, match="known: none"):
        values(preset="podcast", no_config=True)
    places.write(PRESET="radio")
    with pytest.raises(UsageError, match=r"^\$AUDIOSR_PRESET radio") as caught:
        values()
    assert caught.value.hint == f"add a table [preset.radio] to {places.user}"


def test_files_can_be_ignored(places: Places) -> None:
    places.write("no such = syntax", "batch = 5", BATCH="3")
    assert values(no_config=True) == {"batch": 3}
    places.write("no such = syntax", NO_CONFIG="yes")
    assert values() == {"batch": 3}
    places.write("threads = 2", NO_CONFIG="off")
    assert values() == {"batch": 3, "threads": 2}
    places.write(NO_CONFIG="perhaps")
    with pytest.raises(UsageError, match=r"\$AUDIOSR_NO_CONFIG = 'perhaps': expected true or false"):
        values()


@pytest.mark.parametrize(
    ("variable", "text", "parameter", "value"),
    [
        ("QUIET", "1", "quiet", True),
        ("QUIET", "True", "quiet", True),
        ("QUIET", "off", "quiet", False),
        ("DRY_RUN", "yes", "dry_run", True),
        ("FORMAT", "flac", "container", "flac"),
        ("JSON", "0", "as_json", False),
        ("SUBTYPE", "24bit", "subtype", "PCM_24"),
        ("START", "1:30", "start", 90.0),
        ("CHANNELS", "2", "channels", "2"),
        ("DEVICE", "cuda:1", "device", "cuda:1"),
        ("SEPARATE_MODEL", "spectral3", "model", "spectral3"),
    ],
)
def test_variables_are_texts_of_every_type(
    variable: str, text: str, parameter: str, value: object, places: Places
) -> None:
    places.write(**{variable: text})
    assert values() == {parameter: value}


def test_an_empty_variable_is_not_set(places: Places) -> None:
    places.write("batch = 2", BATCH="")
    assert values() == {"batch": 2}


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("SPEAKERS", "two", r"\$AUDIOSR_SPEAKERS: --speakers two: expected a whole number from 1 on, or auto"),
        ("BATCH", "two", r"\$AUDIOSR_BATCH = 'two': expected a whole number"),
        ("BATCH", "0", r"\$AUDIOSR_BATCH = 0: must be at least 1"),
        ("BATCH", "257", r"\$AUDIOSR_BATCH = 257: must be at most 256"),
        ("QUIET", "loud", r"\$AUDIOSR_QUIET = 'loud': expected true or false"),
        ("CLIP", "rescal", r"\$AUDIOSR_CLIP = 'rescal': must be one of warn, .*did you mean 'rescale'"),
        ("DEVICE", "mps", r"\$AUDIOSR_DEVICE: --device mps: not supported yet"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, message: str, places: Places) -> None:
    places.write(**{variable: text})
    with pytest.raises(UsageError, match=message):
        values()


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("speaker = 3", "./audiosr.toml: unknown option 'speaker'", "did you mean speakers?"),
        ("[seperate]\nspeakers = 3", "./audiosr.toml: unknown option 'seperate'", "did you mean separate?"),
        ("[separate]\nspeeker = 3", "./audiosr.toml [separate]: unknown option 'speeker'", "did you mean speakers?"),
        (
            "[upsample]\nspeakers = 3",
            "./audiosr.toml [upsample]: unknown",
            "it is an option of separate, separate-sr and turns",
        ),
        ("[preset.p]\nbach = 3", "./audiosr.toml [preset.p]: unknown option 'bach'", "did you mean batch?"),
        ("[preset.p.upsample]\nrat = 3", "./audiosr.toml [preset.p.upsample]: unknown", "did you mean rate?"),
        ("model = 'm'", "./audiosr.toml: model: differs between", "set it in a table, such as [separate]"),
        ("preset = 'p'", "./audiosr.toml: preset = 'p': expected tables", None),
        ("separate = 3", "./audiosr.toml [separate]: expected a table, not 3", None),
        ("batch = '3'", "./audiosr.toml: batch = '3': expected a whole number", None),
        ("batch = true", "./audiosr.toml: batch = True: expected a whole number", None),
        ("speakers = 'many'", "./audiosr.toml: speakers: --speakers many: expected a whole number", None),
        ("speakers = true", "./audiosr.toml: speakers = True: expected a text or a number", None),
        ("quiet = 1", "./audiosr.toml: quiet = 1: expected true or false", None),
        ("clip = 'clamp'", "./audiosr.toml: clip = 'clamp': must be one of warn, rescale, error", None),
        ("batch = 0", "./audiosr.toml: batch = 0: must be at least 1", None),
        ("rate = '48q'", "./audiosr.toml: rate: --rate 48q: expected a sample rate", None),
        ("rate = [48]", "./audiosr.toml: rate = [48]: expected a text or a number", None),
        ("subtype = '24bti'", "./audiosr.toml: subtype: --subtype 24bti: unknown", "did you mean 24bit?"),
        ("no-config = true", "./audiosr.toml: unknown option 'no-config'", None),
        ("batch = ", "./audiosr.toml: is not valid TOML: ", None),
        ("x = " + "[" * 100_000, "./audiosr.toml: is not valid TOML: ", None),
        ("# " + "x" * (1 << 20), "./audiosr.toml: is larger than 1 MiB", None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_file_is_an_error_that_names_file_and_key(
    content: str, message: str, hint: str | None, places: Places
) -> None:
    places.write(content)
    for command in COMMANDS:  # whatever is wrong, and whichever command it is for
        with pytest.raises(UsageError, match="^" + re.escape(message)) as caught:
            values(command)
        if hint is not None:
            assert caught.value.hint == hint


def test_a_file_may_have_a_bom_and_carriage_returns_and_underscores(places: Places) -> None:
    (places.folder / "audiosr.toml").write_bytes(b"\xef\xbb\xbfdry_run = true\r\nbatch = 2\r\n")
    assert values() == {"dry_run": True, "batch": 2}
    (places.folder / "audiosr.toml").write_bytes(b"batch = '\xff'")
    with pytest.raises(UsageError, match="is not valid TOML"):
        values()


def test_what_is_not_a_file_is_not_read(places: Places) -> None:
    os.mkfifo(places.folder / "audiosr.toml")
    places.user.mkdir()
    assert values() == {}


@pytest.mark.parametrize(
    "line",
    [
        "overwrite = true",
        "ray = 'auto'",
        "files-from = 'list.txt'",
        "output = '/tmp/x'",
        "output = '../x'",
        "output = 'link/x'",
        "manifest = '/tmp/x'",
        "spectrogram = '../x.png'",
        "[preset.p]\noverwrite = true",
        "[upsample]\noverwrite = true",
    ],
)
def test_a_file_in_the_working_folder_cannot_do_harm(line: str, places: Places) -> None:
    (places.folder / "link").symlink_to("/tmp")
    places.write(line)
    with pytest.raises(UsageError, match=r"not accepted from a file|leads out of the working folder") as caught:
        values()
    assert caught.value.hint is not None
    assert str(places.user) in caught.value.hint
    places.write(user=line)
    values()


def test_a_file_in_the_working_folder_may_write_inside_it(places: Places) -> None:
    places.write("output = 'out/tracks'\nmanifest = './run.jsonl'")
    assert values() == {"output": "out/tracks", "manifest": "./run.jsonl"}


def test_the_users_file_stays_the_users_in_its_own_folder(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    places.write(user="overwrite = true")
    monkeypatch.chdir(places.user.parent)
    assert origin("overwrite") == str(places.user)


def test_a_leading_tilde_is_the_home_folder(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    places.write(user="output = '~/out'\n[separate]\nmodel = '~/m.safetensors'")
    assert values() == {"output": "/home/me/out", "model": "/home/me/m.safetensors"}


def test_names_of_variables_are_distinct_and_not_those_that_mean_something_else() -> None:
    known = sources._variables()
    pairs = sum(len(table) for table in settings().values())
    general = {name for table in settings().values() for name in table} - {"model"}
    assert len(known) == pairs + len(general)
    others = set(re.findall(r"`(AUDIOSR_\w+)`", (DOCS / "reference/environment.md").read_text()))
    assert {"AUDIOSR_CACHE", "AUDIOSR_DATA", "AUDIOSR_NUMBA", "AUDIOSR_NO_CONFIG", "AUDIOSR_PRESET"} <= others
    assert not others & known.keys()
    assert not {"AUDIOSR_TEST_THREADS"} & known.keys()


def test_the_file_of_the_guide_is_valid(places: Places) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (DOCS / "guides/options.md").read_text(), re.S)
    places.write(text)
    assert values()["speakers"] == 3
    assert values(preset="podcast")["residual"] is True
    assert values("upsample", preset="podcast")["rate"] == 44100


def test_misspelt_variables_are_found(places: Places) -> None:
    places.write(SPEEKERS="3", CACHE="/tmp", TEST_THREADS="1", DATA="x")
    assert sources.unknown_variables() == ["$AUDIOSR_SPEEKERS: did you mean $AUDIOSR_SPEAKERS?"]
    places.write(MODEL="spectral2")
    assert sources.unknown_variables()[0] == "$AUDIOSR_MODEL: differs between commands; set $AUDIOSR_SEPARATE_MODEL"
