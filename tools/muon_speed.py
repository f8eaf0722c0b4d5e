"""Measure cost and error of both forms of the Newton-Schulz iteration.

`OMP_NUM_THREADS=1 python tools/muon_speed.py`
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

from audiosr_cli.train import optimizers
from audiosr_cli.train.optimizers import orthogonalise

SHAPES = [
    *[(48, 432), (96, 864), (128, 1152), (192, 1728), (256, 2304), (320, 2880), (384, 3456)],
    *[(256, 256), (768, 256), (1024, 256), (384, 384), (384, 1536), (512, 512)],
]


def exact(matrix: Tensor) -> Tensor:
    """Apply the polynomial of the iteration to the singular values, in float64."""
    u, values, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    a, b, c = optimizers._NEWTON_SCHULZ
    for _ in range(optimizers._ITERATIONS):
        values = a * values + b * values**3 + c * values**5
    output: Tensor = (u * values) @ vh
    return output


def main() -> None:
    """Print a table in Markdown: CPU milliseconds (median) and relative errors."""
    torch.set_num_threads(1)
    optimizers._LARGE_ROWS = 0
    print("| shape | Gram form, float32: ms | as published, bf16: ms | error, Gram form | error, bf16 |")
    print("|---|---|---|---|---|")
    for shape in SHAPES:
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        cells = []
        for bf16 in (False, True):
            orthogonalise(matrix, bf16)
            times = []
            for _ in range(15):
                mark = time.process_time()
                orthogonalise(matrix, bf16)
                times.append(1e3 * (time.process_time() - mark))
            error = float((orthogonalise(matrix, bf16) - exact(matrix)).norm() / exact(matrix).norm())
            cells.append((f"{statistics.median(times):.1f}", f"{100 * error:.2g} %"))
        (gram_ms, gram_error), (bf16_ms, bf16_error) = cells
        print(f"| {shape[0]} × {shape[1]} | {gram_ms} | {bf16_ms} | {gram_error} | {bf16_error} |")


if __name__ == "__main__":
    main()
