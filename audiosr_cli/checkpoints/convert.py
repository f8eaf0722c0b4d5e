"""Public checkpoints as models of ours: SpeechBrain's SepFormer, Asteroid's ConvTasNet and DPRNNTasNet.

Their tensors are read without running any of their code (``weights_only``) and put under our names; what is
missing, too much or of another shape is an error. Layouts: ``shared/keys`` of this project.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiosr_cli.errors import ModelError
from audiosr_cli.models import Model, build, make_config

Tensors = dict[str, Tensor]
_UNPICKLING = (  # what torch.load raises, given other files
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
)
_PARTS = ("encoder", "masknet", "decoder")  # of a SepFormer, a .ckpt file each


@dataclass(frozen=True)
class Layout:
    """How a public checkpoint's names become ours: the first pattern that matches a name decides; ``None`` drops it."""

    names: tuple[tuple[str, str | None], ...]

    def rename(self, tensors: Tensors, where: str) -> Tensors:
        """``tensors`` under our names. Raises ModelError on a name that no pattern knows."""
        made = Tensors()
        for name, value in tensors.items():
            for pattern, ours in self.names:
                if found := re.fullmatch(pattern, name):
                    if ours is not None:
                        made[found.expand(ours)] = value
                    break
            else:
                raise ModelError(f"{where}: holds {name!r}, which this kind of checkpoint has not")
        return made


_SEPFORMER = Layout(
    (
        (r"encoder\.conv1d\.weight", "encoder.weight"),
        (r"decoder\.weight", "decoder.weight"),
        (r"masknet\.norm\.(.*)", r"norm.\1"),
        (r"masknet\.conv1d\.(.*)", r"bottleneck.\1"),
        (r"masknet\.dual_mdl\.(\d+)\.(intra|inter)_mdl\.pos_enc\.pe", None),
        (r"masknet\.dual_mdl\.(\d+)\.(intra|inter)_norm\.(.*)", r"blocks.\1.\2_norm.\3"),
        (r"masknet\.dual_mdl\.(\d+)\.(intra|inter)_mdl\.mdl\.norm\.norm\.(.*)", r"blocks.\1.\2.norm.\3"),
        *(
            (
                rf"masknet\.dual_mdl\.(\d+)\.(intra|inter)_mdl\.mdl\.layers\.(\d+)\.{theirs}",
                rf"blocks.\1.\2.layers.\3.{ours}",
            )
            for theirs, ours in (
                (r"self_att\.att\.in_proj_(.*)", r"qkv.\4"),
                (r"self_att\.att\.out_proj\.(.*)", r"out.\4"),
                (r"pos_ffn\.ffn\.0\.(.*)", r"wide.\4"),
                (r"pos_ffn\.ffn\.3\.(.*)", r"narrow.\4"),
                (r"norm(\d)\.norm\.(.*)", r"norm\4.\5"),
            )
        ),
        (r"masknet\.prelu\.weight", "heads.0.prelu.weight"),
        (r"masknet\.conv2d\.(.*)", r"heads.0.spread.\1"),
        (r"masknet\.output\.0\.(.*)", r"heads.0.out.\1"),
        (r"masknet\.output_gate\.0\.(.*)", r"heads.0.gate.\1"),
        (r"masknet\.end_conv1x1\.(.*)", r"heads.0.mask.\1"),
    )
)

_GLOBAL_NORM = (("gamma", "weight"), ("beta", "bias"))
_FRONT = (  # what Asteroid's models have in common
    (r"encoder\.filterbank\._filters", "encoder.weight"),
    (r"decoder\.filterbank\._filters", "decoder.weight"),
    *((rf"masker\.bottleneck\.0\.{theirs}", f"norm.{ours}") for theirs, ours in _GLOBAL_NORM),
    (r"masker\.bottleneck\.1\.(.*)", r"bottleneck.\1"),
)

_DPRNN = Layout(
    (
        *_FRONT,
        (r"masker\.net\.(\d+)\.(intra|inter)_RNN\.rnn\.(.*)", r"blocks.\1.\2.rnn.\3"),
        (r"masker\.net\.(\d+)\.(intra|inter)_linear\.(.*)", r"blocks.\1.\2.linear.\3"),
        *(
            (rf"masker\.net\.(\d+)\.(intra|inter)_norm\.{theirs}", rf"blocks.\1.\2_norm.{ours}")
            for theirs, ours in _GLOBAL_NORM
        ),
        (r"masker\.first_out\.0\.weight", "heads.0.prelu.weight"),
        (r"masker\.first_out\.1\.(.*)", r"heads.0.spread.\1"),
        (r"masker\.net_out\.0\.(.*)", r"heads.0.out.\1"),
        (r"masker\.net_gate\.0\.(.*)", r"heads.0.gate.\1"),
        (r"masker\.mask_net\.(.*)", r"heads.0.mask.\1"),
    )
)

_CONV_TASNET = Layout(
    (
        *_FRONT,
        (r"masker\.TCN\.(\d+)\.shared_block\.0\.(.*)", r"blocks.\1.widen.\2"),
        (r"masker\.TCN\.(\d+)\.shared_block\.1\.(.*)", r"blocks.\1.act1.\2"),
        *(
            (rf"masker\.TCN\.(\d+)\.shared_block\.2\.{theirs}", rf"blocks.\1.norm1.{ours}")
            for theirs, ours in _GLOBAL_NORM
        ),
        (r"masker\.TCN\.(\d+)\.shared_block\.3\.(.*)", r"blocks.\1.depthwise.\2"),
        (r"masker\.TCN\.(\d+)\.shared_block\.4\.(.*)", r"blocks.\1.act2.\2"),
        *(
            (rf"masker\.TCN\.(\d+)\.shared_block\.5\.{theirs}", rf"blocks.\1.norm2.{ours}")
            for theirs, ours in _GLOBAL_NORM
        ),
        (r"masker\.TCN\.(\d+)\.res_conv\.(.*)", r"blocks.\1.residual.\2"),
        (r"masker\.TCN\.(\d+)\.skip_conv\.(.*)", r"blocks.\1.skip.\2"),
        (r"masker\.mask_net\.0\.weight", "prelu.weight"),
        (r"masker\.mask_net\.1\.(.*)", r"mask.\1"),
    )
)


_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "fb_name": ("FreeFB", "free"),
    "norm_type": ("gLN",),
    "mask_act": ("sigmoid", "relu"),
    "causal": (False,),
    "bidirectional": (True,),
    "rnn_type": ("LSTM",),
    "num_layers": (1,),
    "use_mulcat": (False,),
    "encoder_activation": (None, "linear"),
}  # what Asteroid's arguments may say so that the network is one of ours


def import_model(path: Path, name: str, sample_rate: int | None = None) -> Model:
    """A public checkpoint as a model of ours called ``name``.

    ``path`` is a folder with SpeechBrain's encoder.ckpt, masknet.ckpt and decoder.ckpt, or a file that Asteroid
    serialized. ``sample_rate`` in Hz is for those that do not tell, 8000 otherwise. Raises ModelError where it is
    none of these, or its tensors do not fit.
    """
    architecture, values, tensors = _read_sepformer(path) if path.is_dir() else _read_asteroid(path)
    told = values.setdefault("sample_rate", sample_rate or 8000)
    if sample_rate not in (None, told):
        raise ModelError(f"{path}: is a model at {told} Hz, not at {sample_rate}")
    streaming = {"name": name, "context": told, "core": 4 * told, "overlap": told}
    if any(values.get(key, 1) > len(tensors) for key in ("blocks", "layers", "repeats")):
        raise ModelError(f"{path}: has {len(tensors)} tensors, too few for the layers it claims")
    config = make_config(architecture, values | streaming)
    with torch.device("meta"):  # shapes only, so that no claim fills the memory
        wanted = {key: value.shape for key, value in build(architecture, config).state_dict().items()}
    _check(tensors, wanted, path)
    model = build(architecture, config)
    model.load_state_dict({key: value.float().reshape(wanted[key]) for key, value in tensors.items()})
    return model.requires_grad_(False).eval()


def _check(tensors: Tensors, wanted: dict[str, torch.Size], path: Path) -> None:
    """Raise ModelError unless ``tensors`` have the names and shapes ``wanted``; kernels of one tap are matrices."""
    for key in sorted(set(wanted) ^ set(tensors)):
        raise ModelError(f"{path}: {'lacks' if key in wanted else 'has more weights than fit:'} {key!r} (our name)")
    for key, value in tensors.items():
        if _without_ones(value.shape) != _without_ones(wanted[key]):
            raise ModelError(
                f"{path}: {key!r} (our name) has the shape {tuple(value.shape)}; {tuple(wanted[key])} is wanted"
            )
        if not torch.isfinite(value).all():
            raise ModelError(f"{path}: {key!r} (our name) is not finite")


def _without_ones(shape: Sequence[int]) -> list[int]:
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _as_tensors(values: object, path: Path) -> Tensors:
    """``values`` where it is a state dict of floats. Raises ModelError."""
    if not isinstance(values, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) and value.is_floating_point()
        for key, value in values.items()
    ):
        raise ModelError(f"{path}: its weights are not named tensors of floats")
    return values


def _unpickle(path: Path) -> dict[str, Any]:
    """What torch saved in ``path``: tensors and plain values only."""
    try:
        made = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except _UNPICKLING as error:
        raise ModelError(f"{path}: not a file of tensors and plain values that torch saved") from error
    if not isinstance(made, dict):
        raise ModelError(f"{path}: holds a {type(made).__name__}, not a dictionary")
    return made


def _read_sepformer(folder: Path) -> tuple[str, dict[str, Any], Tensors]:
    """SpeechBrain's three files. Sizes are read off the tensors; heads (8) and chunks (250) are the published ones."""
    theirs = Tensors()
    for part in _PARTS:
        path = folder / f"{part}.ckpt"
        theirs |= {f"{part}.{key}": value for key, value in _as_tensors(_unpickle(path), path).items()}
    tensors = _SEPFORMER.rename(theirs, str(folder))
    try:
        filters, _, kernel = tensors["encoder.weight"].shape
        width = tensors["bottleneck.weight"].shape[0]
        values = {
            "filters": filters,
            "kernel": kernel,
            "stride": kernel // 2,
            "width": width,
            "bias": "bottleneck.bias" in tensors,
            "sources": tensors["heads.0.spread.weight"].shape[0] // width,
            "hidden": tensors["blocks.0.intra.layers.0.wide.weight"].shape[0],
            "blocks": _count(tensors, r"blocks\.(\d+)\..*"),
            "layers": _count(tensors, r"blocks\.0\.intra\.layers\.(\d+)\..*"),
        }
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ModelError(f"{folder}: not a SepFormer as SpeechBrain publishes it ({error})") from error
    return "dual_path", values, tensors


def _count(tensors: Tensors, pattern: str) -> int:
    return 1 + max(int(found[1]) for name in tensors if (found := re.fullmatch(pattern, name)))


def _read_asteroid(path: Path) -> tuple[str, dict[str, Any], Tensors]:
    """What ``model.serialize()`` of Asteroid saved."""
    saved = _unpickle(path)
    kind, given = saved.get("model_name"), saved.get("model_args")
    if not isinstance(kind, str) or kind not in _ASTEROID or not isinstance(given, dict):
        known = ", ".join(_ASTEROID)
        raise ModelError(f"{path}: not an Asteroid checkpoint of {known}, nor a folder with SpeechBrain's SepFormer")
    for key, allowed in _SUPPORTED.items():
        if key in given and not any(
            given[key] is value or given[key] == value for value in allowed if _plain(given[key])
        ):
            raise ModelError(f"{path}: {key} = {given[key]!r}; {' or '.join(map(repr, allowed))} can be imported")
    architecture, layout, fields, constants = _ASTEROID[kind]
    values = constants | {ours: _argument(given, theirs, path) for theirs, ours in fields.items()}
    hop = values["chunk"] // 2 if "chunk" in values else None
    if given.get("hop_size") not in (None, hop):
        raise ModelError(f"{path}: hop_size = {given['hop_size']!r}; half of chunk_size can be imported")
    return architecture, values, layout.rename(_as_tensors(saved.get("state_dict"), path), str(path))


def _plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _argument(given: dict[str, Any], key: str, path: Path) -> Any:
    """An argument of Asteroid's: a whole number, or how masks are bounded. Raises ModelError."""
    value = given.get(key, "missing")
    if key == "mask_act" and isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"{path}: {key} = {value!r}; a whole number from 1 on is wanted")
    return value


_COMMON_FIELDS = {
    "n_filters": "filters",
    "kernel_size": "kernel",
    "stride": "stride",
    "bn_chan": "width",
    "n_src": "sources",
    "mask_act": "mask",
    "sample_rate": "sample_rate",
}
_ASTEROID: dict[str, tuple[str, Layout, dict[str, str], dict[str, Any]]] = {
    "ConvTasNet": (
        "conv_tasnet",
        _CONV_TASNET,
        _COMMON_FIELDS
        | {
            "hid_chan": "hidden",
            "skip_chan": "skip",
            "conv_kernel_size": "taps",
            "n_blocks": "blocks",
            "n_repeats": "repeats",
        },
        {"mask": "sigmoid"},
    ),
    "DPRNNTasNet": (
        "dual_path",
        _DPRNN,
        _COMMON_FIELDS | {"hid_size": "hidden", "chunk_size": "chunk", "n_repeats": "blocks"},
        {"path": "lstm", "rectified": False, "bias": True, "padding": 1.0, "mask": "sigmoid"},
    ),
}
