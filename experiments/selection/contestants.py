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
#: (score, space) of the optima that take part; the learned one only where its file is given. The bench found the best networks
#: in tinynas_kxkx, so its optimum tells whether a selection missed it.
OPTIMA = {
    "optimum of mae": ("mae", "tinynas_k1kx"),
    "optimum of effective_rank": ("effective_rank", "tinynas_k1kx"),
    "optimum of effective_rank, kxkx": ("effective_rank", "tinynas_kxkx"),
}
LEARNED = {"optimum of learned": ("learned", "tinynas_k1kx")}
#: Drawn backbones, in the frame of the selected network: DAMO-YOLO's, GELAN's and C3k2's.
DRAWN = ("damo-t", "damo-s", "yolov9-t", "yolo11-n")
#: A drawn detector with its own neck and head, whose widths are scaled.
WHOLE = "yolo11n"
#: How close the measured milliseconds shall come to those of the selected network; tries to get there are aimed so much
#: higher or lower, as widths go in steps and milliseconds with them.
CLOSE, AIMS = 0.015, (0.0, 0.0, 0.008, -0.008, 0.016, -0.016, 0.03, -0.03)

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
        model, ratio = as_fast(spec, selected, command.hardware, session)
        if abs(ratio - 1) > CLOSE:
            say(f"{name} comes no closer than {ratio:.3f} times the milliseconds of the selected network")
            continue
        found.append(Contestant(data, name, family, model, selected.image_size, ratio * target))
    return found


def _others(
    command: SelectCommand, selected: DetectorSpec, learned: str, say: Callable[[str], None]
) -> Iterator[tuple[str, str, DetectorSpec | str]]:
    """(name, family, detector) before it is made as fast as the selected network."""
    proposal = proposal_of(command, selected.head.num_classes)
    for name, (score, space) in (OPTIMA | (LEARNED if learned else {})).items():
        options = {"file": learned} if name in LEARNED else {}
        try:
            result = run_search(replace(search_settings(proposal, space, score), scorer_options=options))
        except UserError as error:
            say(f"{name}: {error}")
            continue
        yield name, "optimal", proposal.frame.detector(backbone_of(result.best.spec))
    for name in DRAWN:
        drawing = hand_drawn()[name]  # where the table says that no width fits the budget, the measurement decides
        yield f"{name} scaled", "drawn", proposal.frame.detector(Price(proposal).fitted(drawing) or drawing)
    yield f"{WHOLE} whole, scaled", "drawn", f"{WHOLE}@0.25"


def as_fast(
    model: DetectorSpec | str, selected: DetectorSpec, hardware: str, session: Session
) -> tuple[DetectorSpec | str, float]:
    """The detector with its backbone's widths, or a drawn one's multiplier, scaled to the milliseconds of `selected`, and the
    ratio of its milliseconds to those. The two are timed in turns each time, so that the load of the machine may change."""

    def ratio_of(current: DetectorSpec | str) -> float:
        theirs, ours = session([selected, current])
        return ours / theirs

    best, ratio, tried = model, ratio_of(model), {model}
    for aim in AIMS:
        if abs(ratio - 1) <= CLOSE:
            break
        current = _rescaled(best, (1 + aim) / ratio, hardware)
        if current is None or current in tried:
            continue
        tried.add(current)
        now = ratio_of(current)
        if abs(now - 1) < abs(ratio - 1):
            best, ratio = current, now
    return best, ratio


def _rescaled(model: DetectorSpec | str, ratio: float, hardware: str) -> DetectorSpec | str | None:
    """The detector with widths that shall take `ratio` of its milliseconds; None where no widths come near that."""
    if isinstance(model, str):
        name, _, width = model.partition("@")
        return f"{name}@{round(float(width) * ratio**0.6, 4):g}"

    def predicted(backbone: Backbone) -> float:
        return float(latency(replace(model, backbone=backbone), hardware))

    # The ratio of measured to predicted milliseconds changes little between similar widths.
    fitted = fit_to_cost(model.backbone, predicted, predicted(model.backbone) * ratio, 0.006)
    return None if fitted is None else replace(model, backbone=fitted)


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
