"""Latency tables of this device: its runtimes by name, each imported only when it is asked for; and the device in words."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cost.table_file import cpu_name
from nas.errors import UserError
from nas.provenance import commit as commit

if TYPE_CHECKING:
    from nas.measure.measurement import Runtime

RUNTIMES = ("onnxruntime", "openvino", "cuda", "tensorrt")


def open_runtime(name: str, threads: int = 1, batch: int = 1) -> Runtime:
    """A runtime on this device; raises UserError where it or its device is missing."""
    if name == "onnxruntime":
        from nas.measure.cpu import OnnxRuntimeCpu

        return OnnxRuntimeCpu(threads, batch)
    if name == "openvino":
        from nas.measure.cpu import OpenVinoCpu

        return OpenVinoCpu(threads, batch)
    if name == "cuda":
        from nas.measure.gpu import TorchCuda

        return TorchCuda(batch)
    if name == "tensorrt":
        from nas.measure.gpu import TensorRtGpu

        return TensorRtGpu(batch)
    raise UserError(f"runtime must be one of {', '.join(RUNTIMES)}, got {name!r}")


def cpu_facts() -> dict[str, object]:
    """Processor, its cores and clocks, the load beside us, date and commit."""
    clocks = sorted(Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_cur_freq"))
    facts: dict[str, object] = {
        "processor": cpu_name(),
        "cores": os.cpu_count() or 1,
        "clock_mhz": [int(path.read_text()) // 1000 for path in clocks][:4] or "not told by the system",
        "system": platform.platform(),
    }
    if hasattr(os, "getloadavg"):
        facts["load_average"] = round(os.getloadavg()[0], 2)
    return facts | stamp()


def gpu_facts() -> dict[str, object]:
    """Name, driver, clocks, power limit of the first GPU as its driver tells them, date and commit."""
    fields = ("name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit", "temperature.gpu")
    try:
        found = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        ).stdout.splitlines()[0].split(", ")  # fmt: skip
    except (OSError, subprocess.SubprocessError, IndexError):
        found = ["not told by the driver"] * len(fields)
    return dict(zip((name.replace(".", "_") for name in fields), found, strict=False)) | stamp()


def stamp() -> dict[str, object]:
    """Date and, in a checkout, the commit."""
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "commit": commit()[:7] or "none"}
