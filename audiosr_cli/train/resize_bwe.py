"""Grow a trained SpectralBWE without changing its output, in the spirit of `resize.grow`."""

from __future__ import annotations

import torch

from audiosr_cli.errors import ModelError
from audiosr_cli.models.spectral_bwe import SpectralBWE, SpectralBWEConfig

# What must stay the same. ``hidden``, too: the blocks normalise over all features of a frame, and the mean of those is
# not zero, so that features beside them would change their scale.
_FIXED = ("sample_rate", "n_fft", "hop_length", "hidden", "kernel", "steady", "inputs")


@torch.no_grad()
def grow_bwe(model: SpectralBWE, config: SpectralBWEConfig) -> SpectralBWE:
    """Grow ``model`` to more blocks, wider ones, or both; the output stays the same at first.

    New blocks follow the trained ones. What a new block or a new feature inside a block adds to the stream starts at
    zero; the weights before that are random, so all of them get gradients within two steps.

    Args:
        model: A trained network.
        config: The new config. Values that do not shape weights (margin, frames, fade_hz, name) may differ.

    Returns:
        A network on the CPU, in training mode.

    Raises:
        ModelError: If ``config`` is smaller in any respect, or differs in what cannot grow.
    """
    old = model.config
    for name in _FIXED:
        before, after = getattr(old, name), getattr(config, name)
        if before != after:
            raise ModelError(f"{name} = {after}: the trained network has {before}, and that cannot be changed")
    for name in ("blocks", "expansion"):
        before, after = getattr(old, name), getattr(config, name)
        if after < before:
            raise ModelError(f"{name} = {after}: the trained network has {before}; use at least as many")
    grown = SpectralBWE(config)
    trained = model.state_dict()
    for key, fresh in grown.state_dict().items():
        if key.endswith(("narrow.weight", "narrow.bias")):
            fresh.zero_()
        if key in trained:
            fresh[tuple(slice(size) for size in trained[key].shape)] = trained[key]
    return grown
