"""models/registry.py: names, and models that other packages register by an entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiosr_cli.errors import ModelError
from audiosr_cli.models import Model, architecture_of, architectures, build, make_config, register, registry
from audiosr_cli.models.conv_tasnet import ConvTasNet, ConvTasNetConfig

SMALL = {"filters": 4, "width": 4, "hidden": 4, "skip": 4, "blocks": 1, "repeats": 1}
PLUGIN = """
from audiosr_cli.models import register
from audiosr_cli.models.conv_tasnet import ConvTasNet, ConvTasNetConfig

@register("other", ConvTasNetConfig)
class Other(ConvTasNet):
    pass
"""


@pytest.fixture(autouse=True)
def a_registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))


def install(folder: Path, source: str, names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``folder`` an installed package whose entry points ``names`` all refer to a module of this test's name."""
    module = folder.name.replace("-", "_")
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"{name} = {module}" for name in names.split()]
    (info / "entry_points.txt").write_text("\n".join([f"[{registry.ENTRY_POINTS}]", *lines]))
    monkeypatch.syspath_prepend(folder)


def test_an_entry_point_adds_an_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "other" not in architectures()
    install(tmp_path, PLUGIN, "other", monkeypatch)
    assert "other" in architectures()
    assert "other" not in registry._REGISTERED  # to list names imports nothing
    model = build("other", make_config("other", SMALL))
    assert (type(model).__name__, architecture_of(model)) == ("Other", "other")


def test_an_entry_point_cannot_replace_a_model_of_this_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, PLUGIN.replace('"other"', '"conv_tasnet"'), "conv_tasnet other", monkeypatch)
    assert type(build("conv_tasnet", make_config("conv_tasnet", SMALL))) is ConvTasNet
    with pytest.raises(ModelError, match=r"Other as 'conv_tasnet': .*\.ConvTasNet has that name; choose another"):
        make_config("other", {})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("", r"registers no such architecture; decorate the model class with @register\('other', …\)"),
    ],
)
def test_a_broken_entry_point_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    install(tmp_path, source, "other", monkeypatch)
    with pytest.raises(ModelError, match=rf"architecture 'other': \w+ {message}"):
        make_config("other", {})
    assert make_config("conv_tasnet", SMALL)  # which needs none of it


def test_a_class_can_be_defined_again_under_its_name() -> None:
    """As a notebook does when its cell runs twice."""
    for _ in range(2):

        @register("again", ConvTasNetConfig)
        class Again(ConvTasNet):
            pass

    assert type(build("again", make_config("again", SMALL))) is Again


def test_unknown_names_list_what_is_known_or_near() -> None:
    with pytest.raises(ModelError, match="unknown architecture 'conv_tasnett'; did you mean 'conv_tasnet'"):
        make_config("conv_tasnett", {})
    with pytest.raises(ModelError, match=f"unknown architecture 'x'; known: {', '.join(architectures())}"):
        make_config("x", {})


def test_an_unregistered_class_cannot_be_named() -> None:
    class Nameless(Model):
        pass

    with pytest.raises(ModelError, match=r"Nameless is not registered; decorate the class with @register"):
        architecture_of(Nameless(make_config("conv_tasnet", SMALL)))
