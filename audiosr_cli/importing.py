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
_FILTERBANKS = (
    (r"encoder\.filterbank\._filters", "encoder.weight"),
    (r"decoder\.filterbank\._filters", "decoder.weight"),
)

_DPRNN = Layout(
    (
        *_FILTERBANKS,
        *((rf"masker\.bottleneck\.0\.{theirs}", f"norm.{ours}") for theirs, ours in _GLOBAL_NORM),
        (r"masker\.bottleneck\.1\.(.*)", r"bottleneck.\1"),
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
        *_FILTERBANKS,
        *((rf"masker\.bottleneck\.0\.{theirs}", f"norm.{ours}") for theirs, ours in _GLOBAL_NORM),
        (r"masker\.bottleneck\.1\.(.*)", r"bottleneck.\1"),
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
    model = build(architecture, make_config(architecture, values | streaming))
    _load(model, tensors, path)
    return model.requires_grad_(False).eval()


def _load(model: Model, tensors: Tensors, path: Path) -> None:
    """``tensors`` into ``model``; kernels of one tap count as matrices. Raises ModelError where they do not fit."""
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    for key in sorted(set(wanted) ^ set(tensors)):
        raise ModelError(f"{path}: {'lacks' if key in wanted else 'has more weights than fit:'} {key!r} (our name)")
    for key, value in tensors.items():
        if not torch.is_floating_point(value) or _without_ones(value.shape) != _without_ones(wanted[key]):
            shapes = f"{tuple(value.shape)}; {tuple(wanted[key])} is wanted"
            raise ModelError(f"{path}: {key!r} (our name) is {value.dtype} {shapes}")
        if not torch.isfinite(value).all():
            raise ModelError(f"{path}: {key!r} (our name) is not finite")
    model.load_state_dict({key: value.float().reshape(wanted[key]) for key, value in tensors.items()})


def _without_ones(shape: Sequence[int]) -> list[int]:
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _unpickle(path: Path) -> dict[str, Any]:
    """What torch saved in ``path``: tensors and plain values only."""
    try:
        made = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: not a file of tensors and plain values that torch saved") from error
    if not isinstance(made, dict):
        raise ModelError(f"{path}: holds a {type(made).__name__}, not a dictionary")
    return made


def _read_sepformer(folder: Path) -> tuple[str, dict[str, Any], Tensors]:
    """SpeechBrain's three files. Sizes are read off the tensors; heads (8) and chunks (250) are the published ones."""
    theirs = {f"{part}.{key}": value for part in _PARTS for key, value in _unpickle(folder / f"{part}.ckpt").items()}
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
    except (KeyError, ValueError) as error:
        raise ModelError(f"{folder}: not a SepFormer as SpeechBrain publishes it ({error})") from error
    return "dual_path", values, tensors


def _count(tensors: Tensors, pattern: str) -> int:
    return 1 + max(int(found[1]) for name in tensors if (found := re.fullmatch(pattern, name)))


def _read_asteroid(path: Path) -> tuple[str, dict[str, Any], Tensors]:
    """What ``model.serialize()`` of Asteroid saved."""
    saved = _unpickle(path)
    kind, given, tensors = (saved.get(key) for key in ("model_name", "model_args", "state_dict"))
    if kind not in _ASTEROID or not isinstance(given, dict) or not isinstance(tensors, dict):
        known = ", ".join(_ASTEROID)
        raise ModelError(f"{path}: not an Asteroid checkpoint of {known}, nor a folder with SpeechBrain's SepFormer")
    for key, allowed in _SUPPORTED.items():
        if key in given and given[key] not in allowed:
            raise ModelError(f"{path}: {key} = {given[key]!r}; {' or '.join(map(repr, allowed))} can be imported")
    architecture, layout, fields, constants = _ASTEROID[kind]
    values = constants | {ours: given[theirs] for theirs, ours in fields.items() if given.get(theirs) is not None}
    if values.get("chunk") and given.get("hop_size") not in (None, values["chunk"] // 2):
        raise ModelError(f"{path}: hop_size = {given['hop_size']}; half of chunk_size can be imported")
    return architecture, values, layout.rename(tensors, str(path))


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
