"""Deep clustering: embeddings of time-frequency bins that are close if the same source dominates them."""

from __future__ import annotations

import torch
from torch import Tensor

# Ridge, relative to the embeddings' mean square of 1. It is far above rounding errors of bf16 in an unused direction
# (1e-5), which whitening would amplify, and far below the variance of 0.5 that each of two sources has.
_RIDGE = 1e-3


def whitened_kmeans(embeddings: Tensor, assignment: Tensor, weight: Tensor) -> Tensor:
    """Compute the whitened k-means loss of each mixture (Wang, Le Roux & Hershey, ICASSP 2018, eq. 10 and after).

    The paper's loss is ‖V (VᵀV)^-½ - Y (YᵀY)^-1 YᵀV (VᵀV)^-½‖² = K - tr((VᵀV)^-1 VᵀY (YᵀY)^-1 YᵀV), with rows
    weighted by the root of ``weight``: whitened embeddings V less the mean of the bins that the same source dominates
    (assignment Y). Here K is replaced by the number of active sources, which changes no gradient: the loss is about 0
    if the sources' bins are well separated and about (active sources - 1) for constant embeddings. A small multiple of
    the identity is added to VᵀV. The loss is not divided by the number of bins or features.

    Args:
        embeddings: (B, N, K), rows of unit length.
        assignment: (B, S, N), 1 for the source that dominates the bin, else 0.
        weight: (B, N), at least 0; bins of weight 0 do not count.

    Returns:
        (B,); 0 for a mixture whose weights are all 0.
    """
    share = weight / weight.sum(1, keepdim=True).clamp_min(1e-12)  # (B, N)
    ridge = _RIDGE * torch.eye(embeddings.shape[2], dtype=embeddings.dtype, device=embeddings.device)
    gram = (embeddings * share.unsqueeze(2)).mT @ embeddings + ridge  # (B, K, K)
    members = assignment * share.unsqueeze(1)  # (B, S, N)
    size, sums = members.sum(2), members @ embeddings  # (B, S), (B, S, K)
    # cholesky_ex does not check for errors, as a check would wait for the device; with the ridge there are none.
    factor = torch.linalg.cholesky_ex(gram).L
    explained = (sums * torch.cholesky_solve(sums.mT, factor).mT).sum(2) / size.clamp_min(1e-12)  # (B, S)
    return ((size > 0).to(size.dtype) - explained).sum(1)


def dominant_sources(power: Tensor, threshold_db: float) -> tuple[Tensor, Tensor]:
    """Determine which source dominates each bin, and which bins count.

    Args:
        power: Power of each source in each bin (B, S, N).
        threshold_db: A bin counts if the sum of its sources' power is within this many dB of the mixture's loudest.

    Returns:
        (assignment, weight) as ``whitened_kmeans`` takes them; a silent mixture has no bin that counts.
    """
    total = power.sum(1)  # (B, N)
    weight = (total > total.amax(1, keepdim=True) * 10 ** (-threshold_db / 10)).to(power.dtype)
    sources = torch.arange(power.shape[1], device=power.device)[:, None]
    return (sources == power.argmax(1).unsqueeze(1)).to(power.dtype), weight
