"""Which device, precision and number of threads a run uses."""

from __future__ import annotations

import copy
import json
import platform
import resource
from collections.abc import Callable

import pytest
import torch

import zoo
from zoo.config import Device, Precision
from zoo.engine import devices

CPU = torch.device("cpu")


def of(product: float) -> Callable[[], float]:
    """What tells the multiply-adds of a product."""
    return lambda: product


SMALL, LARGE = of(1e6), of(1e9)


def native_bf16() -> bool:
    """Whether this processor multiplies bfloat16, by what the system says of it."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = set(file.read().split())
    except OSError:
        pytest.skip("this system has no /proc/cpuinfo")
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def test_auto_takes_an_accelerator_where_there_is_one() -> None:
    there = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert devices.choose_device(Device.auto).type == there
    assert devices.choose_device(Device.cpu) == CPU


@pytest.mark.parametrize("wish", [Device.cuda, Device.mps])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(wish: Device) -> None:
    if {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[wish.value]:
        assert devices.choose_device(wish).type == wish.value
        return
    with pytest.raises(zoo.ConfigError, match=rf"^trainer.device={wish.value}: this machine has no such .* cpu\.$"):
        devices.choose_device(wish)


@pytest.mark.parametrize("wish", [Precision.fp32, Precision.bf16])
@pytest.mark.parametrize("product", [SMALL, LARGE], ids=["small", "large"])
def test_a_precision_that_is_wished_for_is_taken(wish: Precision, product: Callable[[], float]) -> None:
    assert devices.place(CPU, wish, None, product).precision is wish


def test_bf16_is_chosen_on_a_cpu_that_has_it_where_products_gain() -> None:
    assert devices.computes_in_bf16(CPU) == native_bf16()
    assert devices.place(CPU, Precision.auto, None, SMALL).precision is Precision.fp32
    want = Precision.bf16 if native_bf16() else Precision.fp32
    assert devices.place(CPU, Precision.auto, None, LARGE).precision is want
    assert devices.place(CPU, Precision.auto, None, of(devices.CPU_BF16_FROM)).precision is want
    below = devices.place(CPU, Precision.auto, None, of(devices.CPU_BF16_FROM - 1))
    assert below.precision is Precision.fp32


def unasked() -> float:
    raise AssertionError("nothing depends on it")


def test_products_are_counted_only_where_that_decides() -> None:
    assert devices.place(CPU, Precision.fp32, 2, unasked) == devices.Placement(CPU, Precision.fp32, 2)
    assert devices.place(CPU, Precision.bf16, 1, unasked) == devices.Placement(CPU, Precision.bf16, 1)


@pytest.mark.parametrize("kind", ["meta", "mps"])
def test_bf16_is_chosen_on_no_device_that_is_not_known_to_have_it(kind: str) -> None:
    assert devices.place(torch.device(kind), Precision.auto, None, unasked).precision is Precision.fp32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_bf16_is_chosen_on_a_gpu_that_has_it_whatever_the_module() -> None:
    native = torch.cuda.get_device_capability() >= (8, 0)
    want = Precision.bf16 if native else Precision.fp32
    assert devices.place(torch.device("cuda"), Precision.auto, None, unasked).precision is want


def test_small_products_get_one_thread_and_a_wish_is_granted() -> None:
    assert devices.place(CPU, Precision.fp32, None, SMALL).threads == 1
    assert devices.place(CPU, Precision.fp32, None, LARGE).threads == torch.get_num_threads()
    assert {devices.place(CPU, Precision.fp32, 3, product).threads for product in (SMALL, LARGE)} == {3}


def test_threads_are_given_back_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="3 more within"), devices.threads(before + 3):
        raise ValueError(f"{torch.get_num_threads() - before} more within")
    assert torch.get_num_threads() == before


def test_the_machine_is_described() -> None:
    known = devices.hardware(CPU)
    assert known["cores"] >= 1
    assert known["device"] == "cpu"
    assert known["cpu"]
    assert "device" not in devices.hardware()
    json.dumps(known)


@pytest.mark.parametrize("before", [True, False])
def test_float32_on_cuda_is_not_rounded_to_tf32_and_what_held_before_holds_again(
    monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    with devices.autocast(torch.device("cuda"), Precision.fp32):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
    with devices.autocast(CPU, Precision.fp32):
        assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_convolution_in_float32_on_cuda_is_that_of_the_cpu() -> None:
    torch.manual_seed(0)
    layer, values = torch.nn.Conv1d(256, 64, 5), torch.randn(32, 256, 60)
    with torch.no_grad(), devices.autocast(torch.device("cuda"), Precision.fp32):
        there = copy.deepcopy(layer).cuda()(values.cuda()).cpu()
    torch.testing.assert_close(there, layer(values).detach(), rtol=1e-5, atol=1e-5)  # TF32 is off by 3e-4


LARGE_BLOCK = 48 << 20
"""Bytes that glibc gives back to the system when they are freed."""


def faults(size: int, times: int) -> int:
    """Page faults of getting, filling and freeing so many bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(size // 4, dtype=torch.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_memory_freed_in_training_is_not_fetched_anew() -> None:
    with devices.kept_memory(CPU):
        # A hole of just this size has no room for the alignment, and the slivers between holes stay apart until
        # glibc's cache of small chunks, seven of a size, is full. Then there are holes that do for good.
        faults(LARGE_BLOCK, 10)
        assert faults(LARGE_BLOCK, 4) < LARGE_BLOCK // resource.getpagesize()


def test_what_an_accelerator_does_with_memory_is_its_own_affair() -> None:
    with devices.kept_memory(torch.device("meta")):
        assert torch.ones(3).sum() == 3
