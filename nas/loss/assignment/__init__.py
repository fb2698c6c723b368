"""Which prior learns which object: AlignedOTA (default), SimOTA, ATSS and TAL, all on padded batches."""

from nas.loss.assignment.targets import Assignment, Targets, pad_targets

__all__ = ["Assignment", "Targets", "pad_targets"]
