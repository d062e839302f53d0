"""What a machine has, and what training makes of it."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Literal

import torch

from spatialmae.artifacts import locked
from spatialmae.errors import UserError
from spatialmae.model.transformer import AttentionKernel
from spatialmae.train.settings import Precision

DeviceChoice = str  # auto, cpu, cuda, or one GPU by its number, as cuda:1
CompileChoice = Literal["auto", "yes", "no"]

# Compilation takes half a minute to two; shorter runs than this many steps do not win it back.
COMPILE_FROM_STEPS = 2000


@dataclass(frozen=True)
class Hardware:
    """How one run uses the machine.

    Attributes:
        device: where the model and the images live.
        precision: "bf16" (autocast) or "fp32".
        compiled: whether the model is compiled.
        kernel: how attention is computed.
    """

    device: torch.device
    precision: Literal["bf16", "fp32"]
    compiled: bool
    kernel: AttentionKernel

    @classmethod
    def choose(
        cls,
        precision: Precision,
        n_steps: int,
        *,
        device: DeviceChoice = "auto",
        compiled: CompileChoice = "auto",
        static_shapes: bool = True,
    ) -> Hardware:
        """The best use of the machine.

        Args:
            precision: the run's setting.
            n_steps: length of the run.
            device: cpu, cuda, a GPU by its number (cuda:1), or auto, which takes a GPU where there is one.
            compiled: auto compiles long runs on a GPU or a CPU with matrix tiles (AMX): on other CPUs matrix products
                take three quarters of a step and compilation gains nothing.
            static_shapes: whether every step has the same shapes (independent masks have not); else never compiled.

        Raises:
            UserError: CUDA is asked for and not there, or compilation and no C++ compiler is.
        """
        cuda = torch.cuda.is_available()
        if device.startswith("cuda") and not cuda:
            raise UserError("--device", "no CUDA GPU is usable here", "use --device cpu or auto")
        chosen = torch.device("cpu" if device == "cpu" or not cuda else "cuda" if device == "auto" else device)
        resolved = ("bf16" if has_bf16(chosen) else "fp32") if precision == "auto" else precision
        pays = n_steps >= COMPILE_FROM_STEPS and (chosen.type == "cuda" or has_amx()) and has_compiler()
        if compiled == "yes" and not has_compiler():
            raise UserError("--compile", "there is no C++ compiler", "install one, or use --compile no")
        return cls(
            device=chosen,
            precision=resolved,
            compiled=static_shapes and (pays if compiled == "auto" else compiled == "yes"),
            kernel="fused" if chosen.type == "cuda" else "explicit",
        )

    @property
    def name(self) -> str:
        """The device as its maker calls it."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"cpu ({cpu_name()})"


@contextmanager
def reserved_device(device: DeviceChoice, runs_per_gpu: int = 1, gpus: Sequence[str] | None = None) -> Iterator[str]:
    """The device for one process: of several GPUs one that fewer than ``runs_per_gpu`` others have; waits for one.

    Processes of a machine know of each other by locks in its temporary folder, which end with the process.

    Args:
        device: cpu, a GPU by its number, or auto or cuda.
        runs_per_gpu: processes that share a GPU.
        gpus: the GPUs as the machine names them; default: those that torch may use.
    """
    if gpus is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        n_gpus = torch.cuda.device_count()
        gpus = visible if len(visible) == n_gpus else [str(i) for i in range(n_gpus)]
    if device not in ("auto", "cuda") or not gpus:
        yield device
        return
    folder = Path(tempfile.gettempdir()) / f"spatialmae-gpus-{os.getuid()}"
    places = [(i, folder / f"{gpu}.{place}") for place in range(runs_per_gpu) for i, gpu in enumerate(gpus)]
    with ExitStack() as held:
        for i, lock in cycle(places):
            try:
                held.enter_context(locked(lock, wait=False))
            except BlockingIOError:
                time.sleep(0.2)
            else:
                yield f"cuda:{i}"
                return


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products run in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" in _cpu_flags() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_amx() -> bool:
    """Whether the CPU multiplies bf16 matrices in tiles."""
    return "amx_bf16" in _cpu_flags()


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which :func:`torch.compile` calls on CPU and GPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++"))


def cpu_name() -> str:
    """The CPU's model name where the system tells it, else its architecture."""
    return _cpuinfo("model name") or os.uname().machine


def _cpu_flags() -> str:
    return _cpuinfo("flags") or _cpuinfo("Features")


def _cpuinfo(key: str) -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 (read to the first match only)
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return ""


def n_cores() -> int:
    """Cores this process may use: OMP_NUM_THREADS where it is set, as Snakemake does, else those it is bound to."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    if setting.isdecimal() and int(setting) > 0:
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, for the next step needs the same again.

    By default large blocks go back to the system and come again page by page, zeroed: a tenth of a step on a CPU.
    Does nothing with another C library.
    """
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(m_mmap_threshold, 32 * 2**20)  # the largest that glibc takes
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 256 * 2**20)


def prepare_cpu(threads: int) -> None:
    """Settings of a process that trains on a CPU: threads, memory, and denormal numbers as zero."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
