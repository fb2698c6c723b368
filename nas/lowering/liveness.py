"""Which values of a graph must lie in memory at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod

from nas.lowering.fusion import EPILOGUES, VIEWS, Node


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
