"""Networks that are timed, and what a runtime reports of them: whole times, and kernels in their context."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING, Protocol

from nas.blocks.operation import Operation
from nas.cost.kernel_model import Hardware
from nas.cost.measured_table import Kernels, Row
from nas.cost.postprocess import PostProcess
from nas.spec import DetectorSpec

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

#: Repetitions are taken in groups with a pause between them, against throttling.
GROUPS = 3


@dataclass(frozen=True)
class Measurement:
    """One network: its spec, milliseconds per batch, spread of the repetitions in percent, its kernels if known."""

    spec: DetectorSpec
    ms: float
    spread_percent: float
    kernels: tuple[Row, ...] = ()


class Runtime(Protocol):
    """Something that runs networks on a device and can time them."""

    name: str
    precision: str
    batch: int
    kernels: Kernels
    hardware: Hardware

    def provenance(self) -> dict[str, object]:
        """Device, clocks, driver, versions, threads, date and commit."""

    def device(self) -> str:
        """The device in words."""

    def measure(self, spec: DetectorSpec, repetitions: int, kernels: bool = True) -> Measurement:
        """Time a freshly built network of `spec`; its kernels too, if asked and if the runtime can tell them."""

    def after_network(self, repetitions: int) -> PostProcess:
        """Time what follows the network until boxes, from where its outputs lie."""


def build_subject(spec: DetectorSpec) -> nn.Module:
    """A fused detector in eval mode, with weights that keep activations near one.

    Fresh weights without training let activations shrink layer by layer into denormal numbers, which processors compute
    a hundred times slower; here every convolution keeps the variance of its input.
    """
    import torch
    from torch import nn

    from nas.models.detector import build_detector

    model = build_detector(spec).fuse()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, math.sqrt(1.5 / fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-0.1, 0.1, generator=generator)
    return model.eval()


def subject_graph(
    spec: DetectorSpec, format: str = "onnx", precision: str = "fp32", batch: int | None = None
) -> ModelProto:
    """The ONNX graph of the subject, as `python -m nas.export` hands it to a runtime; `batch` fixes its batch."""
    from nas.deploy import ExportSettings
    from nas.deploy.export import deployed_graph

    settings = ExportSettings(format=format, precision=precision, batch=batch)
    return deployed_graph(build_subject(spec), spec.image_size, settings)


def typical(values: Sequence[float]) -> float:
    """Median of the calmer half: what else runs on a machine only ever adds time."""
    ordered = sorted(values)
    return median(ordered[: max(1, -(-len(ordered) // 2))])


def spread(values: Sequence[float]) -> float:
    """Distance of the quartiles in percent of the median."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return 100 * (high - low) / median(values)


def time_repeated(
    run: Callable[[], object],
    repetitions: int,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: int = 2,
    pause: float = 0.05,
) -> tuple[float, float]:
    """Milliseconds of `run` by `clock`, and their spread in percent."""
    for _ in range(warm_up):
        run()
    values: list[float] = []
    for _ in range(GROUPS):
        time.sleep(pause)
        for _ in range(max(1, -(-repetitions // GROUPS))):
            start = clock()
            run()
            values.append((clock() - start) * 1e3)
    return typical(values), spread(values)


def merge_rows(timed: Iterable[tuple[Operation, Sequence[float]]]) -> tuple[Row, ...]:
    """One row per kernel: the median over its places of the quickest repetition at each.

    A kernel is short: what interrupts it multiplies its time. The line that is fitted on whole networks makes up for
    the little by which the quickest is quicker than the typical.
    """
    found: dict[Operation, list[tuple[float, float]]] = defaultdict(list)
    for kernel, values in timed:
        if values and min(values) > 0:
            found[kernel].append((min(values), spread(values)))
    return tuple(
        Row(kernel, median(ms for ms, _ in places), median(scatter for _, scatter in places))
        for kernel, places in found.items()
    )
