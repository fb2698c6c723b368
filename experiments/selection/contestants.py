"""Who is compared on a data set: the network that a selection chose, the optima of scores, and drawn networks, made as fast
as it by their widths, in measured milliseconds of one session on one processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.packed import read_packed, write_packed
from nas.api import latency
from nas.commands.select import SelectCommand
from nas.commands.select_screen import proposal_of
from nas.errors import UserError
from nas.files import load_spec
from nas.searchers.run import run_search
from nas.selection.portfolio import Price, search_settings
from nas.spec import Backbone, DetectorSpec, backbone_of, digest, from_dict, to_dict
from search_spaces.drawings import fit_to_cost, hand_drawn

PATH = Path(__file__).with_name("contestants.jsonl.gz")
#: Scores whose optimum in SPACE takes part; the learned one only where its file is given.
SCORES = ("mae", "effective_rank")
SPACE = "tinynas_k1kx"
#: Drawn backbones, in the frame of the selected network: DAMO-YOLO's, GELAN's and C3k2's.
DRAWN = ("damo-t", "damo-s", "yolov9-t", "yolo11-n")
#: A drawn detector with its own neck and head, whose widths are scaled.
WHOLE = "yolo11n"
#: How close the measured milliseconds shall come to those of the selected network, and tries to get there.
CLOSE, TRIES = 0.015, 6

#: Milliseconds of detectors, each a spec or the name of a drawn one, timed in turns.
Session = Callable[[Sequence[DetectorSpec | str]], list[float]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A detector that is trained on a data set. family: selected, optimal or drawn; ms: measured when it was drawn."""

    data: str
    name: str
    family: str
    model: DetectorSpec | str
    image_size: int
    ms: float

    @property
    def digest(self) -> str:
        """What identifies the network."""
        return self.model if isinstance(self.model, str) else digest(self.model)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, one line of the file."""
        known = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return known | {"model": self.model if isinstance(self.model, str) else to_dict(self.model)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Contestant:
        """The contestant of a line."""
        model = row["model"] if isinstance(row["model"], str) else from_dict(row["model"])
        return cls(**{**row, "model": model})


def draw_contestants(
    data: str, command: SelectCommand, selected: DetectorSpec, session: Session, learned: str = "",
    say: Callable[[str], None] = print,
) -> list[Contestant]:  # fmt: skip
    """Everybody of a data set, the selected network first; those that cannot be made as fast are told and left out.

    command: the settings of the selection, whose budget, hardware, neck and image size hold for the others; learned: the file
    of a learned score.
    """
    (target,) = session([selected])
    found = [Contestant(data, "nas.select", "selected", selected, selected.image_size, target)]
    for name, family, spec in _others(command, selected, learned, say):
        model, ms = as_fast(spec, target, command.hardware, session)
        if abs(ms / target - 1) > CLOSE:
            say(f"{name} comes no closer than {ms:.2f} ms to {target:.2f}")
            continue
        found.append(Contestant(data, name, family, model, selected.image_size, ms))
    return found


def _others(
    command: SelectCommand, selected: DetectorSpec, learned: str, say: Callable[[str], None]
) -> Iterator[tuple[str, str, DetectorSpec | str]]:
    """(name, family, detector) before it is made as fast as the selected network."""
    proposal = proposal_of(command, selected.head.num_classes)
    scores: dict[str, dict[str, Any]] = {score: {} for score in SCORES} | (
        {"learned": {"file": learned}} if learned else {}
    )
    for score, options in scores.items():
        try:
            result = run_search(replace(search_settings(proposal, SPACE, score), scorer_options=options))
        except UserError as error:
            say(f"{score}: {error}")
            continue
        yield f"optimum of {score}", "optimal", proposal.frame.detector(backbone_of(result.best.spec))
    for name in DRAWN:
        spec = Price(proposal).fitted(hand_drawn()[name])
        if spec is None:
            say(f"{name} cannot be scaled to the budget")
            continue
        yield f"{name} scaled", "drawn", proposal.frame.detector(spec)
    yield f"{WHOLE} whole, scaled", "drawn", f"{WHOLE}@0.25"


def as_fast(
    model: DetectorSpec | str, target: float, hardware: str, session: Session
) -> tuple[DetectorSpec | str, float]:
    """The detector with its backbone's widths, or a drawn one's multiplier, scaled to `target` measured milliseconds."""
    best, best_ms = model, session([model])[0]
    current, ms = best, best_ms
    for _ in range(TRIES):
        if abs(best_ms / target - 1) <= CLOSE:
            break
        if isinstance(current, str):
            name, _, width = current.partition("@")
            current = f"{name}@{round(float(width) * (target / ms) ** 0.6, 4):g}"
        else:
            whole = current

            def predicted(backbone: Backbone, around: DetectorSpec = whole) -> float:
                return float(latency(replace(around, backbone=backbone), hardware))

            # The ratio of measured to predicted milliseconds changes little between similar widths.
            wanted = predicted(current.backbone) * target / ms
            fitted = fit_to_cost(current.backbone, predicted, wanted, 0.004)
            if fitted is None:
                break
            current = replace(current, backbone=fitted)
        (ms,) = session([current])
        if abs(ms / target - 1) < abs(best_ms / target - 1):
            best, best_ms = current, ms
    return best, best_ms


def add_contestants(path: Path, contestants: Sequence[Contestant]) -> Path:
    """Put a data set's contestants into the file, in the place of older ones."""
    new = {contestant.data for contestant in contestants}
    kept = [row for row in read_packed(path) if row["data"] not in new]
    return write_packed(path, [*kept, *(contestant.to_dict() for contestant in contestants)])


def read_contestants(path: Path = PATH) -> list[Contestant]:
    """Everybody; UserError if nobody was drawn."""
    rows = read_packed(path)
    if not rows:
        raise UserError(
            f"{path} holds nobody: run `python -m experiments.selection plan data=NAME selected=FOLDER` first"
        )
    return [Contestant.from_dict(row) for row in rows]


def selected_of(folder: Path) -> DetectorSpec:
    """The network that a selection chose; UserError for another folder."""
    spec = load_spec(folder / "selected.yaml")
    if not isinstance(spec, DetectorSpec):
        raise UserError(f"{folder}/selected.yaml is no detector: give the folder of a finished selection")
    return spec
