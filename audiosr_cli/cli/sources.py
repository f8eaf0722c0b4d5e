"""Where options come from that are not on the command line, and which of them counts.

From the strongest to the weakest: a preset, the environment, audiosr.toml in the working folder, the user's
audiosr.toml. A preset stands above the environment because it is chosen for the call, as an option is; what the
environment and files hold was set earlier, for all calls. Within one source, what is set for a command counts before
what is set for all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from audiosr_cli.cli.settings import BY_COMMAND, COMMANDS, names, setting, settings
from audiosr_cli.errors import UsageError
from audiosr_cli.files.parsing import parse_toml

FILE_NAME = "audiosr.toml"
PREFIX = "AUDIOSR_"
# Of these at most one is on, so that a stronger source switches the others off.
EXCLUSIVE = frozenset(("fail", "overwrite", "skip"))

# A file in the working folder may have come with an archive or a checkout, from somebody else. It must not replace
# files, choose recordings, or send them to another machine; what it writes stays inside the folder.
_NOT_IN_FOLDER = frozenset(("overwrite", "ray", "files-from"))
_WRITTEN = frozenset(("output", "manifest", "spectrogram"))
_PATHS = _WRITTEN | {"files-from", "model", "restorer", "upsampler"}
_MAX_BYTES = 1 << 20  # of a file


@dataclass(frozen=True)
class Value:
    """A value of an option, and where it comes from."""

    value: Any
    source: str


@dataclass(frozen=True)
class Source:
    """One place with values: by command (None for all of them) and name of the option."""

    values: Mapping[str | None, Mapping[str, Value]]

    def of(self, command: str) -> dict[str, Value]:
        """Return the values for ``command``, by name."""
        return {**self.values.get(None, {}), **self.values.get(command, {})}


def resolve(
    command: str, arguments: Mapping[str, object] | None = None, preset: str | None = None, no_config: bool = False
) -> dict[str, Value]:
    """Collect the values of those options of a command that are not on its command line.

    Args:
        command: A processing command.
        arguments: Values on the command line, by name of the parameter.
        preset: Name of a preset; None for that of ``$AUDIOSR_PRESET``, if there is one.
        no_config: Whether files are ignored; ``$AUDIOSR_NO_CONFIG`` does the same.

    Returns:
        Values by name of the parameter; options that nothing sets are missing.

    Raises:
        UsageError: If a file or variable is invalid, or there is no such preset.
    """
    known = settings()[command]
    stronger = dict(arguments or {})
    settled = set(stronger)
    if any((arguments or {}).get(name) for name in EXCLUSIVE):
        settled |= EXCLUSIVE
    result: dict[str, Value] = {}
    for source in _sources(preset, no_config):
        values = {
            known[name].parameter: value
            for name, value in source.of(command).items()
            if name in known and known[name].parameter not in settled and not _is_outdone(name, value.value, stronger)
        }
        result |= values
        stronger |= {name: value.value for name, value in values.items()}
        settled |= values.keys()
        if any(name in values and values[name].value for name in EXCLUSIVE):
            settled |= EXCLUSIVE
    return result


def _is_outdone(name: str, value: object, stronger: Mapping[str, object]) -> bool:
    """Return whether a stronger source chooses the model in another way, so that both would be an error."""
    if name == "model":
        return stronger.get("quality") == "fast" or stronger.get("speakers") == "auto"
    return (name, value) in (("quality", "fast"), ("speakers", "auto")) and stronger.get("model") is not None


def folder_file() -> Path:
    """Return the path of the file in the working folder."""
    return Path(FILE_NAME)


def user_file() -> Path:
    """Return the path of the user's file, in the folder that the operating system has for it."""
    from platformdirs import user_config_path

    return user_config_path("audiosr", appauthor=False) / FILE_NAME


def ignores_files(no_config: bool = False) -> bool:
    """Return whether files are ignored. Raises UsageError if ``$AUDIOSR_NO_CONFIG`` is neither true nor false."""
    text = os.environ.get("AUDIOSR_NO_CONFIG", "")
    return no_config or bool(text and setting("quiet").convert(text, "$AUDIOSR_NO_CONFIG", is_text=True))


def unknown_variables() -> list[str]:
    """Describe the environment variables that look like options and set none."""
    known = _variables()
    others = [name for name in os.environ if name.startswith(PREFIX) and name not in known]
    by_command = {f"{PREFIX}{name}".upper(): f"{PREFIX}{COMMANDS[0]}_{name}".upper() for name in BY_COMMAND}
    lines = [f"${name}: differs between commands; set ${by_command[name]}" for name in others if name in by_command]
    similar = ((name, get_close_matches(name, known, 1, 0.9)) for name in others)
    return lines + [f"${name}: did you mean ${near[0]}?" for name, near in similar if near]


def _sources(preset: str | None, no_config: bool) -> Iterator[Source]:
    """Yield all sources, the strongest first."""
    tables = [] if ignores_files(no_config) else [_checked(path, _read(path)) for path in _files()]
    yield from _preset_sources(preset, tables)
    yield _environment()
    for sections in tables:
        yield Source({command: sections.get(command or "", {}) for command in (None, *COMMANDS)})


def _files() -> list[Path]:
    """List the files that may exist, the strongest first; one that is both is the user's."""
    folder, user = folder_file(), user_file()
    return [user] if os.path.realpath(folder) == os.path.realpath(user) else [folder, user]


def _preset_sources(preset: str | None, tables: list[dict[str, dict[str, Value]]]) -> Iterator[Source]:
    """Yield the preset's values in each file that has it. Raises UsageError if none has."""
    name = preset or os.environ.get("AUDIOSR_PRESET") or None
    if name is None:
        return
    start = f"preset.{name}"
    having = [sections for sections in tables if start in sections]
    if not having:
        known = sorted({key.split(".")[1] for sections in tables for key in sections if key.startswith("preset.")})
        origin = "--preset" if preset else "$AUDIOSR_PRESET"
        similar = get_close_matches(name, known, 1)
        hint = f"did you mean {similar[0]}?" if similar else f"add a table [preset.{name}] to {user_file()}"
        raise UsageError(f"{origin} {name}: no such preset; known: {', '.join(known) or 'none'}", hint)
    for sections in having:
        yield Source({None: sections[start]} | {key: sections.get(f"{start}.{key}", {}) for key in COMMANDS})


def _variables() -> dict[str, tuple[str | None, str]]:
    """Return command and name of the option of every variable."""
    pairs = [(command, name) for command in (None, *COMMANDS) for name in names(command)]
    return {PREFIX + "_".join(filter(None, pair)).upper().replace("-", "_"): pair for pair in pairs}


def _environment() -> Source:
    values: dict[str | None, dict[str, Value]] = {}
    for variable, (command, name) in _variables().items():
        if text := os.environ.get(variable):  # an empty one counts as not set
            value = setting(name, command).convert(text, f"${variable}", is_text=True)
            values.setdefault(command, {})[name] = Value(value, f"${variable}")
    return Source(values)


def _read(path: Path) -> dict[str, Any]:
    """Read a file; {} if there is none. Raises UsageError."""
    try:
        if not path.is_file():
            return {}
    except OSError:  # a folder that must not be entered
        return {}
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise UsageError(f"{_shown(path)}: is larger than {_MAX_BYTES >> 20} MiB; expected a file of options")
        return parse_toml(data.decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{_shown(path)}: cannot be read: {error.strerror}; use --no-config") from error
    except ValueError as error:  # of TOML or UTF-8
        raise UsageError(f"{_shown(path)}: is not valid TOML: {error}") from error


def _shown(path: Path) -> str:
    return f"./{path}" if path == folder_file() else str(path)


def _checked(path: Path, content: Mapping[str, Any]) -> dict[str, dict[str, Value]]:
    """Check a whole file; return its values by section ("" for all commands) and name. Raises UsageError."""
    sections: dict[str, dict[str, Value]] = {}

    def check(section: str, table: Any, command: str | None, tables: tuple[str, ...]) -> None:
        where = _shown(path) + (f" [{section}]" if section else "")
        if not isinstance(table, dict):
            raise UsageError(f"{where}: expected a table, not {table!r}")
        sections[section] = {}
        for key, value in table.items():
            if key in tables:
                if key == "preset":
                    for name, inner in _presets(value, where):
                        check(f"preset.{name}", inner, None, COMMANDS)
                else:
                    check(f"{section}.{key}".lstrip("."), value, key, ())
                continue
            option = key.replace("_", "-")
            _check_name(option, key, command, tables, where)
            converted = setting(option, command).convert(_expanded(option, value), f"{where}: {key}")
            if path == folder_file():
                _check_harmless(option, converted, where)
            sections[section][option] = Value(converted, where)

    check("", content, None, (*COMMANDS, "preset"))
    return sections


def _presets(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: preset = {value!r}: expected tables such as [preset.podcast]")
    for name, inner in value.items():
        if not name or "." in name:
            raise UsageError(f"{where}: [preset.{name!r}]: the name of a preset must not be empty or contain a dot")
        yield name, inner


def _check_name(option: str, key: str, command: str | None, tables: tuple[str, ...], where: str) -> None:
    """Raise UsageError unless ``option`` can be set here."""
    known = names(command)
    if option in known:
        return
    if command is None and any(option in own for own in settings().values()):
        raise UsageError(f"{where}: {key}: differs between commands", f"set it in a table, such as [{COMMANDS[0]}]")
    similar = get_close_matches(option, [*known, *tables], 1)
    others = [other for other in COMMANDS if option in settings()[other]]
    if others:
        *most, last = others
        hint = f"it is an option of {', '.join(most) + ' and ' if most else ''}{last}"
    else:
        hint = f"did you mean {similar[0]}?" if similar else f"known: {', '.join(known)}"
    raise UsageError(f"{where}: unknown option {key!r}", hint)


def _expanded(option: str, value: Any) -> Any:
    """Replace a leading ~ of a path by the home folder."""
    is_path = option in _PATHS and isinstance(value, str)
    return os.path.expanduser(value) if is_path else value  # noqa: PTH111 - a name stays as it is


def _check_harmless(option: str, value: Any, where: str) -> None:
    """Raise UsageError if a file in the working folder must not set this."""
    variable = PREFIX + option.upper().replace("-", "_")
    hint = f"use --{option}, ${variable}, or {user_file()}"
    if option in _NOT_IN_FOLDER:
        raise UsageError(f"{where}: {option}: not accepted from a file in the working folder", hint)
    if option in _WRITTEN and value != "-":
        folder = os.path.realpath(".")
        if os.path.commonpath([folder, os.path.realpath(value)]) != folder:
            raise UsageError(f"{where}: {option} = {value!r}: leads out of the working folder", hint)
