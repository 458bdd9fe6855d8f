"""The device and the arithmetic precision that a command uses."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import psutil
import torch

from mlcl_cli.errors import MachineError

DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
# Memory for encoding an image, per input pixel: 320 bytes measured for RN50x4, 400 for ViT-L/14, and some room.
BYTES_PER_PIXEL = 512


@dataclass(frozen=True, slots=True)
class Compute:
    """A device, and its dtype for mixed precision (None: plain fp32), which only training steps use."""

    device: torch.device
    dtype: torch.dtype | None

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision, if enabled."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Allow TF32 for a training step's fp32 products and convolutions, if mixed precision is enabled.

        Logits keep the range of fp32 and the digits of fp16, at several times the speed of fp32 on a GPU.
        """
        _set_fp32_precision("tf32" if self.device.type == "cuda" and self.dtype is not None else "ieee")
        try:
            yield
        finally:
            _set_fp32_precision("ieee")

    @property
    def precision(self) -> str:
        """fp32, fp16 or bf16."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    @property
    def name(self) -> str:
        """The device's name: "cpu", or the GPU's model."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    def __str__(self) -> str:
        return f"{self.name}, {self.precision}"


def choose_compute(device: str, precision: str) -> Compute:
    """Resolve `auto`: CUDA if there is a GPU, and mixed precision on CUDA (bf16 if the hardware supports it).

    Turns off TF32, which torch allows in convolutions by default: features for ranking are encoded in plain fp32.
    Raises MachineError if CUDA is requested but not available. Call before any other torch operation: threads inherit
    the flushing of denormals, without which a confident softmax slows CPU products down a hundred times.
    """
    torch.set_flush_denormal(True)
    _set_fp32_precision("ieee")
    if device == "cuda" and not torch.cuda.is_available():
        remedy = "Set device: auto or cpu, or fix the driver"
        raise MachineError("no CUDA device found", where="device: cuda", remedy=remedy)
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if precision == "auto" and kind == "cuda":
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return Compute(torch.device(kind), DTYPES.get(precision))


def choose_workers(workers: int | str) -> int:
    """Threads that decode images: `workers` if it is a number, else one per processor, at most 16."""
    return workers if isinstance(workers, int) else min(16, os.cpu_count() or 1)


def choose_encode_batch(encode_batch: int | str, device: torch.device, size: int) -> int:
    """Images (of `size` × `size` pixels) or captions to encode at once outside of training steps.

    `auto` is 64 on a CPU and 256 on a GPU, halved until it fits into the device's free memory.
    """
    if isinstance(encode_batch, int):
        return encode_batch
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        batch, free = 256, torch.cuda.mem_get_info(device)[0] + cached
    else:
        batch, free = 64, psutil.virtual_memory().available  # larger batches exceed a CPU's caches
    while batch > 1 and batch * size * size * BYTES_PER_PIXEL > free:
        batch //= 2
    return batch


def _set_fp32_precision(precision: Literal["ieee", "tf32"]) -> None:
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]  # added by a metaclass
