"""From a spec to the list of its operations: the one description that counters, tables, scorers and builders share."""

from nas.blocks.operation import Form, Operation
from nas.lowering.network import backbone_operations, block_operations, operations, out_sizes

__all__ = ["Form", "Operation", "backbone_operations", "block_operations", "operations", "out_sizes"]
