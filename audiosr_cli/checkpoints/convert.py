"""Import of public checkpoints: SpeechBrain's SepFormer, Asteroid's ConvTasNet and DPRNNTasNet.

Tensors are read without running any code of the file (``weights_only``) and renamed; missing and unexpected tensors,
and other shapes, are errors.
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
_UNPICKLING_ERRORS = (  # raised by torch.load for other files
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
)
_SEPFORMER_FILES = ("encoder", "masknet", "decoder")  # .ckpt each


@dataclass(frozen=True)
class NameMap:
    """Maps the names of a public checkpoint to ours.

    ``names`` are pairs of a pattern and a replacement; the first pattern that matches decides, and None drops a tensor.
    """

    names: tuple[tuple[str, str | None], ...]

    def rename(self, tensors: Tensors, where: str) -> Tensors:
        """Rename ``tensors`` of the file or folder ``where``. Raises ModelError for a name that no pattern matches."""
        renamed = Tensors()
        for name, value in tensors.items():
            for pattern, ours in self.names:
                if match := re.fullmatch(pattern, name):
                    if ours is not None:
                        renamed[match.expand(ours)] = value
                    break
            else:
                raise ModelError(f"{where}: unexpected tensor {name!r} for this kind of checkpoint")
        return renamed


_SEPFORMER = NameMap(
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
_FRONT = (  # common to Asteroid's models
    (r"encoder\.filterbank\._filters", "encoder.weight"),
    (r"decoder\.filterbank\._filters", "decoder.weight"),
    *((rf"masker\.bottleneck\.0\.{theirs}", f"norm.{ours}") for theirs, ours in _GLOBAL_NORM),
    (r"masker\.bottleneck\.1\.(.*)", r"bottleneck.\1"),
)

_DPRNN = NameMap(
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

_CONV_TASNET = NameMap(
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
}  # values of Asteroid's arguments that our networks implement


def import_model(path: Path, name: str, sample_rate: int | None = None) -> Model:
    """Load a public checkpoint as one of our models.

    Args:
        path: A folder with SpeechBrain's encoder.ckpt, masknet.ckpt and decoder.ckpt, or a file saved from Asteroid's
            ``model.serialize()``.
        name: Name of the model.
        sample_rate: Hz, for checkpoints that do not state it; 8000 by default.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: If this is no such checkpoint, or its tensors do not fit.
    """
    architecture, values, tensors = _read_sepformer(path) if path.is_dir() else _read_asteroid(path)
    rate = values.setdefault("sample_rate", sample_rate or 8000)
    if sample_rate not in (None, rate):
        raise ModelError(f"{path}: the checkpoint states a sample rate of {rate} Hz, not {sample_rate} Hz")
    # The originals process whole files. Windows of 6 s, with 1 s of context on both sides, are our choice.
    streaming = {"name": name, "context": rate, "core": 4 * rate, "overlap": rate}
    if any(values.get(key, 1) > len(tensors) for key in ("blocks", "layers", "repeats")):
        raise ModelError(f"{path}: has only {len(tensors)} tensors, too few for its number of layers")
    config = make_config(architecture, values | streaming)
    with torch.device("meta"):  # shapes only, so that a hostile config cannot fill the memory
        expected = {key: value.shape for key, value in build(architecture, config).state_dict().items()}
    _check(tensors, expected, path)
    model = build(architecture, config)
    model.load_state_dict({key: value.float().reshape(expected[key]) for key, value in tensors.items()})
    return model.requires_grad_(False).eval()


def _check(tensors: Tensors, expected: dict[str, torch.Size], path: Path) -> None:
    """Raise ModelError unless names and shapes are those ``expected``; convolutions of one tap may be matrices."""
    for key in sorted(set(expected) ^ set(tensors)):
        raise ModelError(f"{path}: the tensor {key!r} (our name) is {'missing' if key in expected else 'unexpected'}")
    for key, value in tensors.items():
        if _without_ones(value.shape) != _without_ones(expected[key]):
            raise ModelError(
                f"{path}: {key!r} (our name) has the shape {tuple(value.shape)}; expected {tuple(expected[key])}"
            )
        if not torch.isfinite(value).all():
            raise ModelError(f"{path}: {key!r} (our name) is not finite")


def _without_ones(shape: Sequence[int]) -> list[int]:
    """Return ``shape`` without trailing ones."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _as_tensors(values: object, path: Path) -> Tensors:
    """Check that ``values`` is a state dict of floating-point tensors. Raises ModelError."""
    if not isinstance(values, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) and value.is_floating_point()
        for key, value in values.items()
    ):
        raise ModelError(f"{path}: the weights are not a dictionary of floating-point tensors")
    return values


def _unpickle(path: Path) -> dict[str, Any]:
    """Load a file saved by torch, with tensors and plain values only. Raises ModelError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except _UNPICKLING_ERRORS as error:
        raise ModelError(f"{path}: not a file of tensors and plain values saved by torch") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a dictionary, not a {type(content).__name__}")
    return content


def _read_sepformer(folder: Path) -> tuple[str, dict[str, Any], Tensors]:
    """Read SpeechBrain's three files. Sizes follow from the tensors; heads (8) and chunks (250) are as published."""
    theirs = Tensors()
    for file in _SEPFORMER_FILES:
        path = folder / f"{file}.ckpt"
        theirs |= {f"{file}.{key}": value for key, value in _as_tensors(_unpickle(path), path).items()}
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
        raise ModelError(f"{folder}: not a SepFormer of SpeechBrain ({error})") from error
    return "dual_path", values, tensors


def _count(tensors: Tensors, pattern: str) -> int:
    """Count layers: the largest number in names that match ``pattern``, plus 1."""
    return 1 + max(int(match[1]) for name in tensors if (match := re.fullmatch(pattern, name)))


def _read_asteroid(path: Path) -> tuple[str, dict[str, Any], Tensors]:
    """Read a file saved from ``model.serialize()`` of Asteroid."""
    saved = _unpickle(path)
    kind, arguments = saved.get("model_name"), saved.get("model_args")
    if not isinstance(kind, str) or kind not in _ASTEROID or not isinstance(arguments, dict):
        kinds = " or ".join(_ASTEROID)
        raise ModelError(f"{path}: not an Asteroid checkpoint of {kinds}, nor a folder with SpeechBrain's SepFormer")
    for key, allowed in _SUPPORTED.items():
        if key in arguments and not any(
            arguments[key] is value or arguments[key] == value for value in allowed if _is_plain(arguments[key])
        ):
            choices = " or ".join(map(repr, allowed))
            raise ModelError(f"{path}: {key} = {arguments[key]!r} is not supported; must be {choices}")
    architecture, name_map, fields, constants = _ASTEROID[kind]
    values = constants | {ours: _argument(arguments, theirs, path) for theirs, ours in fields.items()}
    hop = values["chunk"] // 2 if "chunk" in values else None
    if arguments.get("hop_size") not in (None, hop):
        raise ModelError(
            f"{path}: hop_size = {arguments['hop_size']!r} is not supported; must be half of chunk_size, {hop}"
        )
    return architecture, values, name_map.rename(_as_tensors(saved.get("state_dict"), path), str(path))


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _argument(arguments: dict[str, Any], key: str, path: Path) -> Any:
    """Return an argument of Asteroid's: a positive integer, or the activation of masks. Raises ModelError."""
    value = arguments.get(key, "missing")
    if key == "mask_act" and isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"{path}: {key} = {value!r}; expected an integer of at least 1")
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
_ASTEROID: dict[str, tuple[str, NameMap, dict[str, str], dict[str, Any]]] = {
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
