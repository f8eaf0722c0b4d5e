"""Resize a trained SpectralUNet: grow it without changing its output, or prune its least important channels.

Growth follows the idea of function-preserving transformations (Net2Net, Chen, Goodfellow & Shlens, ICLR 2016), but
copies no channels: new ones start with random weights, and the weights that read them start at zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from audiosr_cli.errors import ModelError
from audiosr_cli.models.spectral_unet import _GROUP, SpectralUNet, SpectralUNetConfig
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Recordings, TrainingTask

# Batches on which the importance of channels is measured.
_BATCHES = 40

# The two output projections of a transformer layer, and the weights that read its residual stream.
_ADD_TO_STREAM = ("out.weight", "narrow.weight")
_READ_STREAM = ("qkv.weight", "wide.weight", "sequence.leave.weight")


@torch.no_grad()
def grow(model: SpectralUNet, config: SpectralUNetConfig) -> SpectralUNet:
    """Grow ``model`` to ``config``; the output stays the same at first.

    Levels and ``hidden`` may become wider (with heads of the same size), and there may be more transformer layers and
    sources. New channels and layers have random weights but do not change the output of the old ones; new sources are
    silent. All new weights get gradients within two steps.

    Args:
        model: A trained network.
        config: The new config. Values that do not shape weights (context, core, name, ...) may differ.

    Returns:
        A network on the CPU, in training mode.

    Raises:
        ModelError: If ``config`` is smaller in any respect, or differs in what cannot grow.
    """
    old = model.config
    _check_growth(old, config)
    grown = SpectralUNet(config)
    trained = _rescaled(model.state_dict(), old.hidden, config.hidden)
    for key, fresh in grown.state_dict().items():
        if key in trained:
            _insert(key, fresh, trained[key], old, config)
        elif key.endswith(_ADD_TO_STREAM):  # of a new layer
            fresh.zero_()
    return grown


def _check_growth(old: SpectralUNetConfig, new: SpectralUNetConfig) -> None:
    """Raise ModelError unless ``old`` can grow to ``new``."""
    _check_same(old, new, "n_fft", "fine", "group", "time_strides")  # time_strides: the same number of levels
    pairs = list(zip(old.widths, new.widths, strict=True))
    if any(wide < narrow for narrow, wide in pairs):
        raise ModelError(
            f"widths = {list(new.widths)}: narrower than the trained network, which has {list(old.widths)}; "
            "use widths at least as large, or make a narrower network with tools/narrow.py first"
        )
    if any(narrow < wide and narrow % _GROUP for narrow, wide in pairs):
        raise ModelError(
            f"widths = {list(old.widths)}: only multiples of {_GROUP} can grow, as channels are normalised"
        )
    for name in ("hidden", "layers", "sources"):
        before, after = getattr(old, name), getattr(new, name)
        if after < before:
            raise ModelError(f"{name} = {after}: the trained network has {before}; use at least as many")
    size = old.hidden // old.heads
    if new.hidden != new.heads * size:
        raise ModelError(
            f"hidden = {new.hidden} with heads = {new.heads}: the heads of the trained network have {size} features "
            f"each; use hidden = {size} * heads"
        )


def _check_same(old: SpectralUNetConfig, new: SpectralUNetConfig, *names: str) -> None:
    """Raise ModelError if one of the fields ``names`` differs."""
    for name in names:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            raise ModelError(f"{name} = {after}: the trained network has {before}, and that cannot be changed")


def _rescaled(state: dict[str, Tensor], hidden: int, wider: int) -> dict[str, Tensor]:
    """Prepare the transformer's weights for a residual stream of ``wider`` features, of which the new ones are zero.

    Every layer reads the stream h (n features) through a LayerNorm, which subtracts the mean and divides by the
    standard deviation. So the mean can be subtracted from everything that is added to the stream. Then n' - n zeros do
    not change the mean, and multiply the variance by n / n'. Scaling the stream by sqrt(n' / n) restores the variance,
    and the effect of eps; the gains of the norms are scaled by the inverse.
    """
    if hidden == wider:
        return state
    scale, rescaled = (wider / hidden) ** 0.5, dict(state)
    for key, value in state.items():
        if key == "sequence.enter.weight" or key.endswith(_ADD_TO_STREAM):
            rescaled[key] = (value - value.mean(0)) * scale
        elif key.startswith("sequence.") and "norm" in key:
            rescaled[key] = value / scale
    return rescaled


def _insert(key: str, fresh: Tensor, old: Tensor, before: SpectralUNetConfig, after: SpectralUNetConfig) -> None:
    """Write the trained weight ``old`` into ``fresh``, its larger counterpart, with zeros where it must not change.

    Both are (outputs, inputs, ...), or vectors of one number for each output.
    """
    if key.startswith("up."):  # transposed convolutions are (inputs, outputs, ...)
        fresh, old = fresh.transpose(0, 1), old.transpose(0, 1)
    outputs, inputs = torch.arange(old.shape[0]), torch.arange(old.shape[1] if old.ndim > 1 else 0)
    if key == "sequence.enter.weight":
        inputs = _bottom_vector(before, torch.arange(before.widths[-1]), after.widths[-1])
    elif key == "sequence.leave.weight":
        outputs = _bottom_vector(before, torch.arange(before.widths[-1]), after.widths[-1])
    elif key.endswith("qkv.weight"):  # rows are (query, key, value) x heads x features of a head
        outputs = torch.arange(3 * after.hidden).view(3, -1)[:, : before.hidden].flatten()
    if key.startswith("head") or key == "sequence.enter.weight" or key.endswith(_ADD_TO_STREAM):
        fresh.zero_()  # new sources are silent, new features of the stream zero
    elif old.ndim > 1 and not key.endswith(
        _READ_STREAM
    ):  # the readers of new features, which are zero, may start random
        fresh[outputs] = 0
    if old.ndim == 1:
        fresh[outputs] = old
    else:
        fresh[outputs[:, None], inputs] = old


def _bottom_vector(config: SpectralUNetConfig, channels: Tensor, width: int) -> Tensor:
    """Return the indices of ``channels`` in a frame (bins x channels) of the lowest map, ``width`` wide."""
    rows = config.rows >> (len(config.widths) - 1)
    return (torch.arange(rows)[:, None] * width + channels).flatten()


@torch.no_grad()
def speech_and_rest(model: SpectralUNet) -> SpectralUNet:
    """Turn a separator of speakers into a network with two outputs: all speech, and the residual of the mixture.

    The mask of the first output is the sum of the speakers' masks, that of the second is one minus that sum. The sum
    of both is the mixture (except the Nyquist bin, which has no mask and is divided by their power).

    Args:
        model: A trained separator of any number of speakers.

    Returns:
        A network of two sources on the CPU, in training mode; its spec says that the second one is the rest.
    """
    network = SpectralUNet(replace(model.config, sources=2))
    trained = model.state_dict()
    for key, value in network.state_dict().items():
        if not key.startswith("head"):
            value.copy_(trained[key])
            continue
        # Rows are (sources, real and imaginary part, bins of a group).
        speech = trained[key].unflatten(0, (model.config.sources, 2, -1)).sum(0)
        both = torch.stack([speech, -speech])
        if key.endswith("bias"):
            both[1, 0] += 1  # the real part
        value.copy_(both.flatten(0, 2))
    network.spec = replace(network.spec, rest=True)
    return network


def importance(model: SpectralUNet, task: TrainingTask, recordings: Recordings) -> dict[str, Tensor]:
    """Estimate the squared change of the loss if a group of channels of a norm were removed.

    The first-order Taylor criterion on the norms' outputs (Molchanov et al., ICLR 2017, arXiv 1611.06440), summed over
    batches of ``task``.

    Args:
        model: A trained network.
        task: What the model is trained for.
        recordings: The recordings of its batches.

    Returns:
        For each norm by name: (groups,).
    """
    generator, ranks = torch.Generator().manual_seed(0), Ranks()
    weights = dict(model.named_parameters())
    norms = [
        key.removesuffix(".bias") for key in weights if key.endswith(".bias") and not key.startswith(("head", "seq"))
    ]
    scores = {key: torch.zeros(len(weights[f"{key}.bias"]) // _GROUP) for key in norms}
    for _ in range(_BATCHES):
        model.zero_grad()
        terms = task.losses(model, task.batch(recordings, generator, ranks)).terms
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        for key, score in scores.items():
            change = sum(w.detach() * cast(Tensor, w.grad) for w in (weights[f"{key}.weight"], weights[f"{key}.bias"]))
            score += cast(Tensor, change).view(-1, _GROUP).sum(1).square()
    return scores


@torch.no_grad()
def cut_bins(model: SpectralUNet, config: SpectralUNetConfig) -> SpectralUNet:
    """Reduce ``model`` to the frames of ``config``, whose bins are its lowest ones: for a lower sample rate.

    Args:
        model: A trained network.
        config: The config that the network is narrowed to afterwards; its frames may be shorter.

    Returns:
        A network with the frames of ``config`` and the widths of ``model``.

    Raises:
        ModelError: If the network cannot be narrowed to ``config`` afterwards.
    """
    _check_narrowing(model.config, config)
    network, trained = SpectralUNet(replace(config, widths=model.config.widths)), model.state_dict()
    for key, value in network.state_dict().items():
        value.copy_(trained[key][tuple(slice(size) for size in value.shape)])
    network.spec = replace(network.spec, rest=model.spec.rest)
    return network


@torch.no_grad()
def narrow(model: SpectralUNet, config: SpectralUNetConfig, scores: dict[str, Tensor]) -> SpectralUNet:
    """Prune ``model`` to the widths of ``config``: each level keeps its most important channels.

    Channels are removed in groups that are normalised together. Maps that are added to each other lose the same ones.

    Args:
        model: A trained network.
        config: The new config, which differs in widths only.
        scores: What ``importance`` returns for ``model``.

    Returns:
        A network on the CPU, in training mode.

    Raises:
        ModelError: If ``config`` differs in more than widths, or is wider anywhere.
    """
    old, bottom = model.config, len(model.config.widths) - 1
    _check_narrowing(old, config)
    _check_same(old, config, "n_fft", "fine")

    def stream(level: int) -> list[str]:
        """Return the norms whose outputs are added to each other at ``level``."""
        entry = "enter_norm" if level == 0 else f"down_norm.{level - 1}"
        if level == bottom:
            return [entry, "before.norms.1", "after.norms.1"]
        return [entry, f"encode.{level}.norms.1", f"decode.{level}.norms.1", f"up_norm.{level}"]

    channels = [
        _best(torch.stack([scores[key] for key in stream(level)]).sum(0), width)
        for level, width in enumerate(config.widths)
    ]
    inner = {
        key.removesuffix(".norms.0"): _best(score, config.widths[_level(key, bottom)])
        for key, score in scores.items()
        if key.endswith(".norms.0")
    }
    network, trained = SpectralUNet(config), model.state_dict()
    vector = _bottom_vector(old, channels[bottom], old.widths[bottom])
    for key, value in network.state_dict().items():
        value.copy_(_pick(key, trained[key], channels, inner, vector))
    network.spec = replace(network.spec, rest=model.spec.rest)
    return network


def _check_narrowing(old: SpectralUNetConfig, new: SpectralUNetConfig) -> None:
    """Raise ModelError unless ``new`` differs from ``old`` only in smaller widths and in its frames."""
    _check_same(old, new, "group", "time_strides", "hidden", "layers", "heads", "sources")
    if any(after > before for before, after in zip(old.widths, new.widths, strict=True)):
        raise ModelError(f"widths = {list(new.widths)}: none may exceed the trained network's {list(old.widths)}")
    if any(width % _GROUP for width in old.widths + new.widths):
        raise ModelError(f"widths = {list(new.widths)} from {list(old.widths)}: all must be multiples of {_GROUP}")


def _level(key: str, bottom: int) -> int:
    """Return the level of the block with the weight ``key``."""
    number = key.split(".")[1]
    return int(number) if number.isdigit() else bottom


def _best(scores: Tensor, width: int) -> Tensor:
    """Return the ``width`` channels of the groups with the highest ``scores``, in order."""
    groups = scores.topk(width // _GROUP).indices.sort().values
    return (groups[:, None] * _GROUP + torch.arange(_GROUP)).flatten()


def _pick(key: str, value: Tensor, channels: list[Tensor], inner: dict[str, Tensor], vector: Tensor) -> Tensor:
    """Select from the weight ``key`` the ``channels`` of each level and of the ``inner`` map of each block."""
    part, *rest = key.split(".")
    match part:
        case "encode" | "decode" | "before" | "after":
            block, kind, index = key.rsplit(".", 3)[:3]
            outer = channels[_level(key, len(channels) - 1)]
            outputs, inputs = (inner[block], outer) if index == "0" else (outer, inner[block])
            return value[outputs][:, inputs] if kind == "convs" else value[outputs]
        case "down" | "up":  # the lower level's channels come first: as outputs, or transposed
            return value[channels[int(rest[0]) + 1]][:, channels[int(rest[0])]]
        case "down_norm" | "up_norm":
            return value[channels[int(rest[0]) + (part == "down_norm")]]
        case "enter" | "enter_high" | "enter_norm":
            return value[channels[0]]
        case "head" | "head_high":
            return value[:, channels[0]] if rest == ["weight"] else value
    if key == "sequence.enter.weight":
        return value[:, vector]
    return value[vector] if key == "sequence.leave.weight" else value
