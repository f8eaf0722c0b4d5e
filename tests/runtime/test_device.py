"""runtime/device.py: choice of device and precision."""

from __future__ import annotations

import pytest
import torch

from audiosr_cli.errors import UsageError
from audiosr_cli.runtime.device import computes_bf16, float32_products, pick_bf16, pick_device


def test_unknown_and_missing_devices_are_refused() -> None:
    assert pick_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA device"):
            pick_device("cuda")


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "cuda:01", "cuda1", "CPU", "cpu:0", ""])
def test_names_that_no_device_has_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"unknown device '{name}'; must be auto, cpu, cuda or cuda:N"):
        pick_device(name)


def test_mps_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"^--device mps: not supported yet; use --device cpu$"):
        pick_device("mps")


def test_one_of_several_gpus_is_chosen_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device(name) for name in ("auto", "cuda", "cuda:0", "cuda:1")] == ["cuda", "cuda", "cuda:0", "cuda:1"]
    with pytest.raises(UsageError, match="--device cuda:2: no such device; the last one is cuda:1"):
        pick_device("cuda:2")


@pytest.mark.parametrize(
    ("features", "native"),
    [({}, False), ({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)],
)
def test_auto_precision_is_bf16_if_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], native: bool
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert computes_bf16("cpu") == pick_bf16("auto", "cpu") == native
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")  # which leaves nothing that computes in bfloat16
    assert not computes_bf16("cpu")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx512_core_bf16")
    assert computes_bf16("cpu") == native
    assert pick_bf16("bf16", "cpu") and not pick_bf16("float32", "cpu")


@pytest.mark.parametrize("native", [True, False])
def test_emulated_bf16_on_cuda_does_not_count(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert computes_bf16("cuda") == native


def test_tf32_is_allowed_on_cuda_unless_products_are_exact() -> None:
    def allowed() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = allowed()
    for device, exact, expected in (
        ("cpu", True, before),
        ("cuda", True, (False, False)),
        ("cuda", False, (True, True)),
        ("cuda:1", True, (False, False)),
    ):
        with float32_products(device, exact):
            assert allowed() == expected
        assert allowed() == before
