"""From a spec to the list of its operations: the one description that counters, tables, scorers and builders share."""

from nas.lowering.network import backbone_operations, block_operations, operations, out_sizes
from nas.lowering.operation import Operation
from nas.lowering.primitives import Form

__all__ = ["Form", "Operation", "backbone_operations", "block_operations", "operations", "out_sizes"]
