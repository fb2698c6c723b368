"""What a file says of where it comes from, so that it can be proved later: digests of its parts, of the data and recipe that
made it, versions, and what the network saw in eight drawn pictures. `maenas verify` reads it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import MaxLen
from torch import Tensor, nn

from nas.options import NotNegative, Pixels, Share, check_object
from nas.provenance import made_with
from nas.spec import digest, from_dict

#: How many pictures a network is shown, their side where the network is free to choose, and the best pairs of box and class
#: that are kept of each.
PICTURES, SMALL, KEPT = 8, 256, 8
#: How far scores and boxes (pixels) of one network may differ between processors.
SCORE_TOLERANCE, BOX_TOLERANCE = 1e-3, 0.5
#: Label, score and corners of a pair of box and class.
Row = Annotated[list[float], MaxLen(6)]


@dataclass(frozen=True)
class Sight:
    """What a network saw in the drawn pictures of `side` pixels: of each its best rows (label, score, x1, y1, x2, y2).

    pictures: digest of the pictures; score, box: how far a row may be off elsewhere; share: of the rows that must be found.
    """

    side: Pixels
    pictures: str
    rows: list[list[Row]]
    score: NotNegative = SCORE_TOLERANCE
    box: NotNegative = BOX_TOLERANCE
    share: Share = 1.0


@dataclass(frozen=True)
class Passport:
    """digests: of each part of the file, by name; made_with: versions and commit; training: digests of data and recipe, seed,
    and the latency table that the network was found by; seal: digest of all the rest."""

    digests: dict[str, str]
    made_with: dict[str, str]
    training: dict[str, str] = field(default_factory=dict)
    sight: Sight | None = None
    seal: str = ""

    def __post_init__(self) -> None:
        check_object(self)

    def sealed(self) -> Passport:
        """The same with the seal that belongs to it."""
        return replace(self, seal=digest_of(asdict(replace(self, seal=""))))


def digest_of(data: object) -> str:
    """32 hex digits of plain data, whatever the order of its keys."""
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=16).hexdigest()


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """32 hex digits of names, types, shapes and bytes of tensors."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        state.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        state.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def checkpoint_passport(
    model: nn.Module, tensors: Mapping[str, Tensor], header: Mapping[str, object], training: Mapping[str, str] | None
) -> Passport:
    """The passport of a checkpoint with this header and these tensors; training None: as of the file that the model was
    read from, if its weights are still the same."""
    weights = weights_digest(tensors)
    digests = {"weights": weights, **header_digests(json.loads(json.dumps(header)))}
    if training is None:
        training = training_of(getattr(model, "passport", None), weights)
    return Passport(digests, made_with("torch"), dict(training), seen(model)).sealed()


def training_of(known: Passport | None, weights: str) -> dict[str, str]:
    """What a passport tells of the training, as long as the weights are still those that it is of."""
    return known.training if known is not None and known.digests.get("weights") == weights else {}


def header_digests(header: Mapping[str, object]) -> dict[str, str]:
    """Digest of each part of a header, as JSON holds it, but the passport; and that of the spec, as its file has it."""
    found = {name: digest_of(value) for name, value in header.items() if name != "passport"}
    architecture = header.get("architecture")
    if isinstance(architecture, Mapping) and "spec" in architecture:
        found["spec"] = digest(from_dict(architecture["spec"]))
    return found


def seen(model: nn.Module) -> Sight | None:
    """What a detector sees, in its form for deployment on the CPU; None of a module that has no such form."""
    if not hasattr(model, "fuse"):
        return None
    with torch.random.fork_rng([]):  # fused layers are drawn before they are filled: nobody's random numbers move
        deployed: nn.Module = copy.deepcopy(model).cpu().float().fuse().eval()  # type: ignore[operator]
    deployed.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    side = min(int(model.image_size), SMALL)  # type: ignore[arg-type]
    pictures = generated_pictures(PICTURES, side)
    return Sight(side, pictures_digest(pictures), best_rows(deployed, pictures))


def best_rows(
    network: Callable[[Tensor], Sequence[Tensor | np.ndarray]], pictures: Sequence[np.ndarray]
) -> list[list[Row]]:
    """The best pairs of box and class that a network finds in each picture (1, 3, S, S), best first; finite ones alone."""
    found = []
    with torch.inference_mode():
        for picture in pictures:
            scores, boxes = _outputs(network, picture)
            best = scores.flatten().nan_to_num(-1.0).topk(min(KEPT, scores.numel()))
            rows = []
            for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                prior, label = divmod(place, scores.shape[1])
                corners = boxes[prior]
                if value > 0 and bool(corners.isfinite().all()):
                    rows.append([float(label), round(value, 6), *(round(x, 3) for x in corners.tolist())])
            found.append(rows)
    return found


def differing(
    network: Callable[[Tensor], Sequence[Tensor | np.ndarray]],
    sight: Sight,
    pictures: Sequence[np.ndarray],
    score: float,
    box: float,
) -> str:
    """Which rows of a sight a network does not find again, and how far its best scores are off; empty if it agrees.

    score, box: the tolerances. A row is found if any pair of that label has nearly its score and box: what is almost equal
    may change places.
    """
    lost = total = 0
    apart = 0.0
    with torch.inference_mode():
        for picture, rows in zip(pictures, sight.rows, strict=True):
            scores, boxes = _outputs(network, picture)
            best = scores.flatten().nan_to_num(-1.0).topk(min(len(rows), scores.numel())).values.tolist()
            if len(best) < len(rows) or not all(len(row) == 6 and 0 <= row[0] < scores.shape[1] for row in rows):
                return "rows that this network cannot have"
            apart = max([apart, *(abs(one - row[1]) for one, row in zip(best, rows, strict=True))])
            total += len(rows)
            for label, value, *corners in rows:
                near = (scores[:, int(label)] - value).abs() <= score
                near &= (boxes - torch.tensor(corners)).abs().amax(-1) <= box
                lost += not bool(near.any())
    if total - lost < sight.share * total:
        return f"{lost} of {total} detections are not found again"
    if apart > score and sight.share == 1:
        return f"the best scores differ by {apart:.2g}, more than {score:.2g}"
    return ""


def _outputs(network: Callable[[Tensor], Sequence[Tensor | np.ndarray]], picture: np.ndarray) -> tuple[Tensor, Tensor]:
    """Scores (N, C) and corners (N, 4) of one picture (1, 3, S, S), in float32 on the CPU."""
    scores, boxes = (torch.as_tensor(value)[0].float().cpu() for value in network(torch.from_numpy(picture))[:2])
    return scores, boxes


def generated_pictures(count: int, side: int, seed: int = 0) -> list[np.ndarray]:
    """Made-up inputs (1, 3, S, S): coloured rectangles over a soft background, with a little noise; the same everywhere."""
    generator = np.random.RandomState(seed)  # the one whose numbers no version of numpy changes
    pictures = []
    for _ in range(count):
        coarse = generator.uniform(0, 255, (3, 4, 4))
        image = np.kron(coarse, np.ones((1, -(-side // 4), -(-side // 4))))[:, :side, :side]
        for _ in range(12):
            x1, y1 = generator.randint(0, side - 8, 2)
            width, height = generator.randint(8, max(9, side // 2), 2)
            image[:, y1 : y1 + height, x1 : x1 + width] = generator.uniform(0, 255, (3, 1, 1))
        noisy = image + generator.normal(0, 8, image.shape)
        pictures.append(np.clip(np.rint(noisy), 0, 255).astype(np.float32)[None])
    return pictures


def pictures_digest(pictures: Sequence[np.ndarray]) -> str:
    """32 hex digits of pictures."""
    state = hashlib.blake2b(digest_size=16)
    for picture in pictures:
        state.update(picture.astype(np.uint8).tobytes())
    return state.hexdigest()
