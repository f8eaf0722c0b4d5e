"""train/clustering.py: the whitened k-means loss against its definition, and which bins it is about."""

from __future__ import annotations

import pytest
import torch
from corpora import generator
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.train import clustering
from audiosr_cli.train.clustering import dominant_sources, whitened_kmeans


def by_definition(embeddings: Tensor, assignment: Tensor, weight: Tensor) -> Tensor:
    """The paper's norm of a matrix of N rows, with (VᵀV)^-½ from its eigenvectors; one mixture, no ridge."""
    root = weight.sqrt()[:, None]
    v, y = embeddings * root, assignment.T * root  # (N, K), (N, S)
    values, vectors = torch.linalg.eigh(v.T @ v)
    white = v @ vectors @ torch.diag(values.rsqrt()) @ vectors.T
    centroids = torch.linalg.inv(y.T @ y) @ (y.T @ white)
    return (white - y @ centroids).square().sum()


def mixtures(count: int, bins: int, features: int, sources: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random embeddings of unit length, assignments and weights of 0 and 1, in float64."""
    embeddings = F.normalize(torch.randn(count, bins, features, generator=generator(), dtype=torch.float64), dim=2)
    owner = torch.randint(sources, (count, bins), generator=generator(1))
    weight = (torch.rand(count, bins, generator=generator(2)) < 0.7).double()
    return embeddings, F.one_hot(owner, sources).mT.double(), weight


def test_whitened_kmeans_is_the_papers_up_to_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "_RIDGE", 0.0)
    embeddings, assignment, weight = mixtures(3, 60, 5, 2)
    slow = torch.stack([by_definition(*item) for item in zip(embeddings, assignment, weight, strict=True)])
    torch.testing.assert_close(whitened_kmeans(embeddings, assignment, weight), slow - 5 + 2)


def test_gradients_are_those_of_the_loss() -> None:
    embeddings, assignment, weight = mixtures(2, 12, 3, 2)
    embeddings.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: whitened_kmeans(v, assignment, weight), (embeddings,))


def test_perfect_embeddings_have_no_loss_and_equal_ones_have() -> None:
    _, assignment, weight = mixtures(2, 60, 3, 3)
    perfect = assignment.mT @ torch.linalg.qr(torch.randn(3, 3, generator=generator(), dtype=torch.float64)).Q
    torch.testing.assert_close(whitened_kmeans(perfect, assignment, weight), torch.zeros(2).double(), atol=0.02, rtol=0)
    alike = torch.ones_like(perfect) / 3**0.5
    torch.testing.assert_close(
        whitened_kmeans(alike, assignment, weight), torch.full((2,), 2.0).double(), atol=0.02, rtol=0
    )


def test_silent_sources_and_silent_mixtures_cost_nothing() -> None:
    embeddings, assignment, weight = (part.float() for part in mixtures(3, 60, 20, 2))
    assignment[1] = torch.tensor([1.0, 0.0])[:, None]
    weight[2] = 0
    embeddings.requires_grad_()
    loss = whitened_kmeans(embeddings, assignment, weight)
    loss.sum().backward()
    assert embeddings.grad is not None and torch.isfinite(embeddings.grad).all()
    assert 0 < loss[1] < 1 and loss[2] == 0
    assert not embeddings.grad[2].any() and embeddings.grad[0].any()
    alike = torch.ones(1, 60, 20) / 20**0.5
    assert abs(float(whitened_kmeans(alike, assignment[1:2], weight[1:2]))) < 0.02  # one source: alike is perfect


def test_the_loss_in_float32_equals_that_in_float64() -> None:
    embeddings, assignment, weight = mixtures(1, 5000, 20, 2)
    narrow = F.normalize(embeddings * torch.logspace(0, -4, 20).double(), dim=2)  # hardly more than one direction
    for v in (embeddings, narrow, torch.ones_like(embeddings) / 20**0.5):
        wide = whitened_kmeans(v, assignment, weight)
        single = whitened_kmeans(v.float(), assignment.float(), weight.float())
        torch.testing.assert_close(single.double(), wide, atol=1e-3, rtol=0)


def test_the_louder_source_has_a_bin_and_faint_bins_do_not_count() -> None:
    power = torch.tensor([[[1.0, 3e-4, 0.0, 1e-5], [0.5, 4e-4, 1e-3, 2e-5]], [[0.0] * 4, [0.0] * 4]])
    assignment, weight = dominant_sources(power, 40.0)
    assert assignment[0].tolist() == [[1, 0, 0, 0], [0, 1, 1, 1]]
    assert weight.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]
    assert dominant_sources(power, 30.0)[1][0].tolist() == [1, 0, 0, 0]
