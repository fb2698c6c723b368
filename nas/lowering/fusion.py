"""A graph of layers as it was written -> the kernels that an inference engine runs.

The same rules serve operation lists from files and modules traced by `nas.measure.trace`, so both are priced alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from nas.lowering.operation import CONVOLUTIONS, Operation

Shape = tuple[int, ...]

#: Layers that only rename memory.
VIEWS = frozenset({"reshape", "identity"})
#: Layers that compute one output value from one value of each input.
POINTWISE = frozenset(
    "add sub mul div neg abs pow sqrt exp log erf clip where compare tanh "
    "relu silu sigmoid gelu hardswish hardsigmoid leaky_relu elu mish softplus".split()
)
#: Layers that move values; a pointwise kernel reads or writes through them.
MOVES = frozenset({"slice", "split", "gather", "transpose", "expand"})
#: Pointwise layers that a convolution carries as its epilogue.
EPILOGUES = frozenset({"relu", "silu", "sigmoid", "gelu", "hardswish", "leaky_relu", "mish"})


#: Activations after which a residual sum still belongs to the same kernel: a SiLU runs beside the sum.
LATE_SUM = frozenset({"none", "silu", "gelu", "hardswish", "mish"})


@dataclass(frozen=True, slots=True)
class Node:
    """One layer of a graph: `inputs` are indices of earlier nodes (-1 is the network input), shapes include the batch.

    kind: an Operation kind, or one of VIEWS, POINTWISE, "split", "expand"; `axis` counts for concat alone.
    """

    kind: str
    inputs: tuple[int, ...]
    in_shapes: tuple[Shape, ...]
    out_shape: Shape
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False


def _map(shape: Shape) -> tuple[int, int, int]:
    """Channels, height and width of a tensor at batch 1; whatever is not a map is (second, third, the rest)."""
    inner = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    channels, height = (*inner, 1, 1)[:2]
    return channels, height, prod(inner[2:])


def _rows(shape: Shape) -> tuple[int, int]:
    return prod(shape[:-1]), shape[-1]


def _operation(node: Node) -> Operation:
    """The kernel of one node, still without what it absorbs."""
    kind = "slice" if node.kind in ("split", "expand") else node.kind
    if kind == "linear":
        rows, width = _rows(node.out_shape)
        inner = node.in_shapes[0][-1]
        return Operation("linear", inner, width, rows, 1, rows, 1, bias=node.bias)
    if kind == "matmul":
        first, out = node.in_shapes[0], node.out_shape
        stacked = prod(out[:-2])
        return Operation("matmul", first[-1], out[-1], out[-2], 1, out[-2], 1, groups=stacked)
    channels, height, width = _map(node.out_shape)
    in_channels, in_height, in_width = _map(node.in_shapes[0]) if node.in_shapes else (channels, height, width)
    if kind == "concat" or kind in POINTWISE:
        area = max(height * width, 1)
        in_channels = max(1, round(sum(prod(shape) for shape in node.in_shapes) / area))
        in_height, in_width = height, width
    if kind == "slice":
        in_channels, in_height, in_width = channels, height, width
    size = (height, width, in_height, in_width)
    return Operation(kind, in_channels, channels, *size, node.kernel, node.stride, node.groups, bias=node.bias)


def fuse_graph(nodes: Sequence[Node]) -> tuple[Operation, ...]:
    """The kernels of a graph in execution order, by TensorRT's rules.

    Convolutions and linear layers take one activation and one residual sum (in either order) of which they are the only
    producer left to run; reshapes vanish; connected pointwise layers become one kernel; four strided slices and their
    concatenation are one space-to-depth; everything else is one kernel.
    """
    return _Fuser(nodes).run()


class _Fuser:
    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.readers: list[list[int]] = [[] for _ in nodes]
        for index, node in enumerate(nodes):
            for source in dict.fromkeys(node.inputs):
                if source >= 0:
                    self.readers[source].append(index)
        self.absorbed = [node.kind in VIEWS for node in nodes]

    def run(self) -> tuple[Operation, ...]:
        kernels: list[tuple[int, Operation]] = []
        for index, node in enumerate(self.nodes):
            if node.kind in CONVOLUTIONS:
                kernels.append((index, self._with_epilogue(index)))
        done = {index for index, _ in kernels}
        for index, node in enumerate(self.nodes):
            if self.absorbed[index] or index in done or self._moves_for_free(index):
                self.absorbed[index] = self.absorbed[index] or index not in done
                continue
            if node.kind in POINTWISE:
                kernels.append((index, self._chain(index)))
            elif node.kind == "concat" and (merged := self._space_to_depth(index)) is not None:
                kernels.append((index, merged))
            else:
                kernels.append((index, _operation(node)))
        dropped = {index for index, gone in enumerate(self.absorbed) if gone}
        return tuple(kernel for index, kernel in sorted(kernels, key=lambda pair: pair[0]) if index not in dropped)

    def _only_reader(self, index: int) -> int | None:
        """The one layer that reads a value, looking through reshapes."""
        readers = self.readers[index]
        if len(readers) != 1:
            return None
        return self._only_reader(readers[0]) if self.nodes[readers[0]].kind in VIEWS else readers[0]

    def _with_epilogue(self, index: int) -> Operation:
        kernel = _operation(self.nodes[index])
        last = index
        for _ in range(2):
            reader = self._only_reader(last)
            if reader is None or self.absorbed[reader]:
                break
            node = self.nodes[reader]
            if node.kind in EPILOGUES and kernel.activation == "none":
                kernel = replace(kernel, activation=node.kind)
            elif node.kind == "add" and not kernel.fused_add and self._is_residual(index, node):
                if kernel.activation not in LATE_SUM:
                    break
                kernel = replace(kernel, fused_add=True)
            else:
                break
            self.absorbed[reader] = True
            last = reader
        return kernel

    def _is_residual(self, index: int, node: Node) -> bool:
        """A sum of two equally large maps, the other of which exists before the convolution runs."""
        if len(node.in_shapes) != 2 or prod(node.in_shapes[0]) != prod(node.in_shapes[1]):
            return False
        return all(self._origin(source) <= index for source in node.inputs)

    def _origin(self, source: int) -> int:
        """The node that computes a value, before reshapes and absorbed epilogues."""
        while source >= 0 and (self.nodes[source].kind in VIEWS or self.absorbed[source]):
            source = max(self.nodes[source].inputs, default=-1)
        return source

    def _chain(self, start: int) -> Operation:
        """One kernel for a pointwise layer and all pointwise layers that follow it and nothing else."""
        members = {start}
        for reader in sorted(self._reachable(start)):
            sources = [self._origin(source) for source in self.nodes[reader].inputs]
            available = all(source in members or source < start for source in sources)
            if available and (self.nodes[reader].kind != "concat" or members.issuperset(sources)):
                members.add(reader)
        if len(members) == 1:
            return _operation(self.nodes[start])
        read = {
            (source, shape)
            for member in members
            for source, shape in zip(self.nodes[member].inputs, self.nodes[member].in_shapes, strict=False)
            if self._origin(source) not in members
        }
        written = [self.nodes[member].out_shape for member in members if not self._computed_readers(member) <= members]
        written = written or [self.nodes[max(members)].out_shape]
        self.absorbed = [gone or (i in members and i != start) for i, gone in enumerate(self.absorbed)]
        channels, height, width = _map(max(written, key=prod))
        area = max(height * width, 1)
        inputs = max(1, round(sum(prod(shape) for _, shape in read) / area))
        outputs = max(1, round(sum(prod(shape) for shape in written) / area))
        return Operation("elementwise", inputs, outputs, height, width, height, width)

    def _reachable(self, start: int) -> set[int]:
        """Every layer that hangs on `start` through pointwise layers and moves alone."""
        found, frontier = set(), [start]
        while frontier:
            for reader in self._computed_readers(frontier.pop()):
                light = self.nodes[reader].kind in POINTWISE | MOVES or self.nodes[reader].kind == "concat"
                if light and reader not in found and not self.absorbed[reader]:
                    found.add(reader)
                    frontier.append(reader)
        return found

    def _computed_readers(self, index: int) -> set[int]:
        """The layers that read a value, directly or through reshapes; -1 stands for the network's output."""
        if not self.readers[index]:
            return {-1}
        found: set[int] = set()
        for reader in self.readers[index]:
            found |= self._computed_readers(reader) if self.nodes[reader].kind in VIEWS else {reader}
        return found

    def _moves_for_free(self, index: int) -> bool:
        """A part that only pointwise kernels read, or a transposition that a matrix product does by itself."""
        kind = self.nodes[index].kind
        if kind not in MOVES:
            return False
        readers = {self.nodes[reader].kind if reader >= 0 else "output" for reader in self._computed_readers(index)}
        if kind == "transpose":
            if readers == {"concat"}:
                return True
            source = self._origin(self.nodes[index].inputs[0])
            return readers == {"matmul"} or (source >= 0 and self.nodes[source].kind == "matmul")
        return readers <= POINTWISE

    def _space_to_depth(self, index: int) -> Operation | None:
        """Focus: four slices of one image, each a quarter of it, concatenated."""
        node = self.nodes[index]
        if len(node.inputs) != 4 or any(source < 0 or self.nodes[source].kind != "slice" for source in node.inputs):
            return None
        channels, height, width = _map(node.out_shape)
        sources = {self.nodes[source].inputs for source in node.inputs}
        if len(sources) != 1:
            return None
        for source in node.inputs:
            self.absorbed[source] = True
        return Operation("slice", channels // 4, channels, height, width, 2 * height, 2 * width, 2, 2)
