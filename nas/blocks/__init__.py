"""The blocks that backbones are made of: one file a family, which holds its value and its operations."""

from nas.blocks.base import Block
from nas.blocks.c3k2 import C2PSA, C3k2
from nas.blocks.csp import CSP
from nas.blocks.gelan import GELAN
from nas.blocks.inverted import InvertedResidual
from nas.blocks.operation import Operation
from nas.blocks.residual import Plain, Residual

__all__ = ["C2PSA", "CSP", "GELAN", "Block", "C3k2", "InvertedResidual", "Operation", "Plain", "Residual"]

#: The built-in families under the names that files call them by.
BLOCK_TYPES: dict[str, type[Block]] = {
    kind.__name__: kind for kind in (Plain, Residual, InvertedResidual, CSP, GELAN, C3k2, C2PSA)
}
