"""A graph of layers as it was written -> the kernels that an inference engine runs, and the memory that they need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from nas.blocks.operation import CONVOLUTIONS, Operation

Shape = tuple[int, ...]

#: Layers that only rename memory.
VIEWS = frozenset({"reshape", "identity"})
#: Layers that compute one output value from one value of each input.
POINTWISE = frozenset(
    "batchnorm add sub mul div neg abs pow sqrt exp log erf clip where compare tanh "
    "relu silu sigmoid gelu hardswish hard_sigmoid leaky_relu elu mish softplus".split()
)
#: Layers that move values; a pointwise kernel reads or writes through them.
MOVES = frozenset({"slice", "split", "gather", "transpose", "expand"})
#: Pointwise layers that a convolution carries as its epilogue.
EPILOGUES = frozenset("relu silu sigmoid gelu hardswish hard_sigmoid leaky_relu mish".split())


#: Activations after which a residual sum still belongs to the same kernel: a SiLU runs beside the sum.
LATE_SUM = frozenset({"none", "silu", "gelu", "hardswish", "mish"})


@dataclass(frozen=True, slots=True)
class Node:
    """One layer of a graph: `inputs` are indices of earlier nodes (-1 is the network input), shapes include the batch.

    kind: an Operation kind, or one of VIEWS, POINTWISE, MOVES, "batchnorm".
    constant: learnable numbers of a pointwise layer that scales or shifts by a constant, 0 for all others.
    """

    kind: str
    inputs: tuple[int, ...]
    in_shapes: tuple[Shape, ...]
    out_shape: Shape
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    constant: int = 0


def _layout(shape: Shape) -> tuple[int, int, int]:
    """Channels, height and width of a tensor at batch 1; what is not a map is (the rest, its longest side, 1)."""
    inner = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    if len(inner) == 3:
        channels, height, width = inner
        square = max(height, width) <= 4 * min(height, width) and channels <= 64 * height * width
        if square or height == width:
            return channels, height, width
    if len(inner) < 2:
        return prod(inner), 1, 1
    longest = max(inner)
    return prod(inner) // max(longest, 1), longest, 1


def _operation(node: Node, source_shape: Shape | None = None) -> Operation:
    """The kernel of one node, still without what it absorbs; `source_shape` is the layout of what it reads."""
    kind = "slice" if node.kind in ("split", "expand") else node.kind
    if kind == "linear":
        rows, width = prod(node.out_shape[:-1]), node.out_shape[-1]
        return Operation("linear", node.in_shapes[0][-1], width, rows, 1, rows, 1, bias=node.bias)
    if kind == "matmul":
        first, out = node.in_shapes[0], node.out_shape
        return Operation("matmul", first[-1], out[-1], out[-2], 1, out[-2], 1, groups=prod(out[:-2]))
    same = source_shape is not None and prod(source_shape) == prod(node.out_shape)
    channels, height, width = _layout(source_shape if same and source_shape else node.out_shape)
    if kind in ("concat", "slice", "softmax", "layernorm", "transpose", "gather") or kind in POINTWISE:
        whole = [prod(shape) for shape in node.in_shapes if kind == "concat" or prod(shape) >= prod(node.out_shape)]
        read = channels if kind in ("slice", "gather") else max(1, sum(whole) // max(height * width, 1))
        return Operation(kind, read, channels, height, width, height, width)
    in_channels, in_height, in_width = _layout(node.in_shapes[0])
    size = (height, width, in_height, in_width)
    return Operation(kind, in_channels, channels, *size, node.kernel, node.stride, node.groups, bias=node.bias)


def fuse_graph(nodes: Sequence[Node], outputs: Iterable[int] = ()) -> tuple[Operation, ...]:
    """The kernels of a graph in execution order, by TensorRT's rules.

    Convolutions and linear layers take one activation and one residual sum (in either order) of which they are the only
    producer left to run; reshapes vanish; connected pointwise layers become one kernel; four strided slices and their
    concatenation are one space-to-depth; everything else is one kernel. With `outputs` (indices of nodes), whatever
    does not lead to one of them is dropped.
    """
    return _Fuser(_alive(nodes, set(outputs))).run()


def _alive(nodes: Sequence[Node], outputs: set[int]) -> list[Node]:
    """The nodes with everything that leads to no output replaced by an empty view."""
    if not outputs:
        return list(nodes)
    for index in range(len(nodes) - 1, -1, -1):
        if index in outputs:
            outputs.update(nodes[index].inputs)
    return [node if index in outputs else Node("reshape", (), (), ()) for index, node in enumerate(nodes)]


def _preparing(nodes: Sequence[Node]) -> set[int]:
    """Scalings and shifts of the image by constants: part of its preparation, or of the first convolution's weights."""
    found = {-1}
    for index, node in enumerate(nodes):
        if node.kind in ("mul", "div", "sub", "add") and len(node.inputs) == 1 and node.inputs[0] in found:
            found.add(index)
    return found


def _is_sum(node: Node) -> bool:
    """Whether an addition has two equally large terms."""
    return len(node.in_shapes) == 2 and prod(node.in_shapes[0]) == prod(node.in_shapes[1])


class _Fuser:
    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.readers: list[list[int]] = [[] for _ in nodes]
        for index, node in enumerate(nodes):
            for source in dict.fromkeys(node.inputs):
                if source >= 0:
                    self.readers[source].append(index)
        preparing = _preparing(nodes)
        self.absorbed = [node.kind in VIEWS or index in preparing for index, node in enumerate(nodes)]

    def run(self) -> tuple[Operation, ...]:
        kernels: list[tuple[int, Operation]] = []
        for index, node in enumerate(self.nodes):
            if node.kind in CONVOLUTIONS and self._integral(index) is None:
                kernels.append((index, self._with_epilogue(index)))
        done = {index for index, _ in kernels}
        for index, node in enumerate(self.nodes):
            if self.absorbed[index] or index in done or self._moves_for_free(index):
                self.absorbed[index] = self.absorbed[index] or index not in done
                continue
            if (integral := self._integral(index)) is not None:
                kernels.append((index, integral))
            elif node.kind in POINTWISE:
                kernels.append((index, self._chain(index)))
            elif node.kind == "concat" and (merged := self._space_to_depth(index)) is not None:
                kernels.append((index, merged))
            else:
                kernels.append((index, self._plain(index)))
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
        while (reader := self._only_reader(last)) is not None and not self.absorbed[reader]:
            node = self.nodes[reader]
            if node.kind == "batchnorm" and kernel.activation == "none" and not kernel.norm:
                kernel = replace(kernel, norm=True)
            elif node.constant and node.constant in (1, kernel.out_channels) and kernel.activation == "none":
                kernel = replace(kernel, scalars=kernel.scalars + node.constant)
            elif node.kind in EPILOGUES and kernel.activation == "none":
                kernel = replace(kernel, activation=node.kind)
            elif node.kind == "add" and not kernel.fused_add and kernel.activation in LATE_SUM and _is_sum(node):
                kernel = replace(kernel, fused_add=True)
            else:
                break
            self.absorbed[reader] = True
            last = reader
        return kernel

    def _plain(self, index: int) -> Operation:
        """A kernel that absorbs nothing, in the layout in which its input was made."""
        node = self.nodes[index]
        origin = self._origin(node.inputs[0]) if len(node.inputs) == 1 else -1
        return _operation(node, self.nodes[origin].out_shape if origin >= 0 else None)

    def _integral(self, index: int) -> Operation | None:
        """The expectation of a softmax: a product with constants and a sum, or a matrix with one column."""
        node = self.nodes[index]
        if node.kind in CONVOLUTIONS:
            single = prod(node.out_shape) * node.in_shapes[0][1 if node.kind == "conv" else -1] == prod(
                node.in_shapes[0]
            )
            last, bins = index, prod(node.in_shapes[0]) // max(prod(node.out_shape), 1)
            if not single or node.kernel > 1:
                return None
        else:
            reader = self._only_reader(index)
            if node.kind != "mul" or len(node.inputs) != 1 or reader is None or self.nodes[reader].kind != "reduce":
                return None
            last, bins = reader, 0
        origin = self._origin(node.inputs[0])
        while origin >= 0 and (self.nodes[origin].kind == "concat" or self.nodes[origin].kind in MOVES):
            origin = self._origin(self.nodes[origin].inputs[0])
        if origin < 0 or self.nodes[origin].kind != "softmax":
            return None
        if last != index:
            self.absorbed[last] = True
        channels, height, width = _layout(self.nodes[last].out_shape)
        read = prod(node.in_shapes[0]) // (height * width)
        return Operation("integral", read, channels, height, width, height, width, scalars=bins)

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
            return self._plain(start)
        read = {
            (source, shape)
            for member in members
            for source, shape in zip(self.nodes[member].inputs, self.nodes[member].in_shapes, strict=False)
            if self._origin(source) not in members
        }
        written = [self.nodes[member].out_shape for member in members if not self._computed_readers(member) <= members]
        written = written or [self.nodes[max(members)].out_shape]
        self.absorbed = [gone or (i in members and i != start) for i, gone in enumerate(self.absorbed)]
        _, height, width = _layout(max(written, key=prod))
        area = max(height * width, 1)
        # A gate or a bias that is spread over a map is next to nothing beside it.
        least = max((prod(shape) for _, shape in read), default=0) // 4
        inputs = max(1, sum(prod(shape) for _, shape in read if prod(shape) > least) // area)
        outputs = max(1, sum(prod(shape) for shape in written) // area)
        return Operation("elementwise", inputs, outputs, height, width, height, width)

    def _reachable(self, start: int) -> set[int]:
        """Every layer that hangs on `start` through pointwise layers and moves alone."""
        found, frontier = set(), [start]
        while frontier:
            for reader in self._computed_readers(frontier.pop()) - {-1}:
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
            if readers <= POINTWISE | {"concat", "output"}:
                return True
            source = self._origin(self.nodes[index].inputs[0])
            return readers == {"matmul"} or (source >= 0 and self.nodes[source].kind == "matmul")
        return readers <= POINTWISE

    def _space_to_depth(self, index: int) -> Operation | None:
        """Focus: four slices of one image, each a quarter of it, concatenated."""
        node = self.nodes[index]
        if len(node.inputs) != 4 or any(source < 0 or self.nodes[source].kind != "slice" for source in node.inputs):
            return None
        channels, height, width = _layout(node.out_shape)
        sources = {self.nodes[source].inputs for source in node.inputs}
        if len(sources) != 1:
            return None
        for source in node.inputs:
            self.absorbed[source] = True
        return Operation("slice", channels // 4, channels, height, width, 2 * height, 2 * width, 2, 2)


def peak_values(nodes: Sequence[Node], outputs: Iterable[int]) -> int:
    """The largest number of values that are alive together when the nodes run in order, the network's input included.

    A node's inputs and its result are alive together; views, convolution epilogues and sums need no memory of their own.
    """
    owner = list(range(len(nodes)))
    sizes = [prod(node.out_shape) for node in nodes]
    readers = Counter(source for node in nodes for source in set(node.inputs))
    for index, node in enumerate(nodes):
        free = node.kind in VIEWS | EPILOGUES or node.kind in ("split", "slice", "transpose", "batchnorm")
        if free and len(node.inputs) == 1:
            source = node.inputs[0]
            owner[index] = owner[source] if source >= 0 else -1
        elif node.kind == "add":
            # A sum is written over a term that nothing else reads.
            alone = [source for source in node.inputs if source >= 0 and readers[source] == 1]
            if alone and sizes[alone[0]] == sizes[index]:
                owner[index] = owner[alone[0]]
    taken = [shape for node in nodes for i, shape in zip(node.inputs, node.in_shapes, strict=True) if i < 0]
    image = max((prod(shape) for shape in taken), default=0)
    last = {-1: -1}
    for index, node in enumerate(nodes):
        for source in node.inputs:
            last[owner[source] if source >= 0 else -1] = index
    for index in outputs:
        last[owner[index]] = len(nodes)
    ends: dict[int, list[int]] = {}
    for value, index in last.items():
        ends.setdefault(index, []).append(value)
    alive, peak = image, image
    for index in range(len(nodes)):
        if owner[index] == index and index in last:
            alive += sizes[index]
        peak = max(peak, alive)
        for value in ends.get(index, ()):
            alive -= image if value < 0 else sizes[value]
    return peak
