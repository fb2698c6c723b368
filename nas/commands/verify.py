"""Whether a file is what its passport says: digests of its parts, of the data that made it, what it sees in eight drawn
pictures on this processor, and who signed it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nas.deploy import EXPORTED, load_runtime
from nas.errors import UserError
from nas.options import Name, check_object

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    from torch import Tensor

    from nas.models.passport import Passport, Sight

#: What a passport calls the digests of the splits that made a file.
SPLITS = {"train": "training data", "val": "validation data"}
Outcome = Literal["same", "differs", "not checked", "told"]


@dataclass(frozen=True, kw_only=True)
class VerifyCommand:
    """What `python -m nas.verify` is told.

    model: a checkpoint or an exported file; dataset: a name or path, whose digest is compared; key: a public key (PEM) that
    FILE.sig must be of; sign: a private key by which FILE.sig is written first.
    """

    model: Name
    dataset: Name | None = None
    key: Name | None = None
    sign: Name | None = None

    def __post_init__(self) -> None:
        check_object(self)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, what is known of it, and the outcome; `told` is what nothing here can prove."""

    name: str
    told: str
    outcome: Outcome


def verified(model: str, data: str | None = None, key: str | None = None) -> tuple[Check, ...]:
    """Everything that can be checked of a checkpoint or exported file, in order.

    data: a name of conf/data or a path; key: a public key, for FILE.sig. Raises UserError for a file that is damaged or has
    no passport, and for data or a key that cannot be read; what differs is an outcome (`require_same` raises for it).
    """
    path = Path(model)
    if path.suffix not in (".safetensors", *EXPORTED):
        raise UserError(f"{model}: a checkpoint ends in .safetensors, an exported file in {', '.join(EXPORTED)}")
    if not path.is_file():
        raise UserError(f"{model}: no such file")
    signed = [_signature(path, key)] if key is not None else []
    passport, checks = _checkpoint(path) if path.suffix == ".safetensors" else _exported(path)
    if passport.sealed().seal != passport.seal:
        checks.append(Check("passport", "it was changed after it was written", "differs"))
    checks += _data(passport, data)
    told = {name: value for name, value in passport.training.items() if name not in SPLITS.values()}
    checks += [Check(name, value, "told") for name, value in (told | passport.made_with).items()]
    return (*signed, *checks)


def require_same(model: str, checks: Sequence[Check]) -> None:
    """UserError that names what differs."""
    different = [check for check in checks if check.outcome == "differs"]
    if different:
        told = "; ".join(f"{check.name} ({check.told})" for check in different)
        raise UserError(f"{model} is not what its passport says: {told}")


def sign(model: str, key: str) -> Path:
    """Write FILE.sig, a signature of the file by a private key (PEM, elliptic curve); raises UserError for a key that is none."""
    signing, _ = _signer()
    signature = Path(f"{model}.sig")
    _require_files(model, key)
    try:
        signing.Config().use_elliptic_key_signer(private_key=key).sign(model, str(signature))
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{model} cannot be signed by {key}: {_first(error)}") from None
    return signature


def _signature(path: Path, key: str) -> Check:
    _, verifying = _signer()
    signature = f"{path}.sig"
    _require_files(key, signature)
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=key).verify(str(path), signature)
    except ValueError as error:
        return Check("signature", _first(error).partition(":")[0], "differs")
    return Check("signature", f"by the owner of {key}", "same")


def _signer() -> tuple[ModuleType, ModuleType]:
    try:
        return importlib.import_module("model_signing.signing"), importlib.import_module("model_signing.verifying")
    except ImportError:
        raise UserError("signatures need model-signing: pip install 'maenas[sign]'") from None


def _require_files(*names: str) -> None:
    for name in names:
        if not Path(name).is_file():
            raise UserError(f"{name}: no such file")


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _checkpoint(path: Path) -> tuple[Passport, list[Check]]:
    from nas.deploy.parity import rounding
    from nas.models.checkpoint import load_checkpoint, passport_of, read_checkpoint
    from nas.models.passport import header_digests, weights_digest

    header, tensors = read_checkpoint(path)
    passport = _required(passport_of(header, path), path, "its weights load as ever")
    checks = _parts(passport, {"weights": weights_digest(tensors), **header_digests(header)})
    if passport.sight is None or any(check.outcome == "differs" for check in checks):
        return passport, checks  # a file that was changed need not even load
    network = load_checkpoint(path).fuse()
    return passport, [*checks, _detections(network, passport.sight, lambda pictures: rounding(network, pictures))]


def _exported(path: Path) -> tuple[Passport, list[Check]]:
    from nas.deploy.passport import file_digests, metadata_of

    metadata = metadata_of(path)
    passport = _required(metadata.passport, path, "export it again for one")
    checks = _parts(passport, file_digests(path, metadata))
    if passport.sight is None or any(check.outcome == "differs" for check in checks):
        return passport, checks
    try:
        network = load_runtime(path)
    except UserError as error:  # the runtime or its device is not on this machine
        return passport, [*checks, Check("detections", str(error), "not checked")]
    return passport, [*checks, _detections(network, passport.sight)]


def _required(passport: Passport | None, path: Path, remedy: str) -> Passport:
    if passport is None:
        raise UserError(
            f"{path} has no passport, so nothing of it can be verified: an older maenas wrote it ({remedy})"
        )
    return passport


def _parts(passport: Passport, now: Mapping[str, str]) -> list[Check]:
    """The digests of a file's parts beside those of its passport."""
    then = passport.digests
    return [
        Check(name, now.get(name, "it is gone"), "same" if now.get(name) == then.get(name) else "differs")
        for name in dict.fromkeys((*then, *now))
    ]


def _detections(
    network: Callable[[Tensor], Sequence[Tensor | np.ndarray]],
    sight: Sight,
    rounding: Callable[[Sequence[np.ndarray]], tuple[float, float]] | None = None,
) -> Check:
    """What a network sees in the drawn pictures beside what it saw when it was written.

    rounding: how far its scores and boxes are from exact ones, which counts where the usual tolerance does not do: a network
    of hardly any training multiplies every rounding.
    """
    from nas.models.passport import PICTURES, differing, generated_pictures, pictures_digest

    pictures = generated_pictures(PICTURES, sight.side)
    if pictures_digest(pictures) != sight.pictures or len(sight.rows) != PICTURES:
        return Check("detections", "this version draws other pictures", "not checked")
    problem = differing(network, sight, pictures, sight.score, sight.box)
    if problem and rounding is not None:
        from nas.deploy.parity import ROUNDINGS

        score, box = (ROUNDINGS * value for value in rounding(pictures))
        problem = differing(network, sight, pictures, max(sight.score, score), max(sight.box, box))
    total = sum(map(len, sight.rows))
    told = problem or f"{total} in {PICTURES} drawn pictures of {sight.side} pixels"
    return Check("detections", told, "differs" if problem else "same")


def _data(passport: Passport, data: str | None) -> list[Check]:
    """The digests of the splits that made a file, beside those of the data where it is given."""
    known = {split: passport.training.get(name) for split, name in SPLITS.items()}
    if data is None:
        return [Check(SPLITS[split], value, "not checked") for split, value in known.items() if value]
    if not any(known.values()):
        raise UserError("the passport does not tell of the data that made the file: leave data=... out")
    from nas.config import compose_config
    from nas.data.actions import DataCommand
    from nas.data.sources import load_splits

    config = compose_config("data", DataCommand, {"data": data}).data
    if config.mode == "strict":
        config = replace(config, check="labels")  # the pictures' names and lengths are in the digest
    splits, _ = load_splits(config, tuple(split for split, value in known.items() if value))
    found = {split: splits[split].digest() if split in splits else "no such split" for split in known if known[split]}
    return [
        Check(SPLITS[split], value, "same" if value == known[split] else "differs") for split, value in found.items()
    ]
