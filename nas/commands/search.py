"""What `python -m nas.search` is told, and the search that it does in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cost.budget import TIMES
from nas.errors import UserError, shown
from nas.extensions import CHOSEN, is_reference, loaded
from nas.files import config_folder
from nas.frame import Frame, NeckOptions
from nas.options import Name, Pixels
from nas.resume import continuation, continued, store_settings
from nas.searchers import SearchOptions
from nas.spec import USUAL_SIDE

if TYPE_CHECKING:
    from nas.searchers.settings import SearchSettings

#: What may differ between a run and its continuation, and what it may go on further with.
FREE = ("resume", "workers", "progress")
FURTHER = ("evaluations",)


@dataclass(frozen=True, kw_only=True)
class SearchCommand(SearchOptions):
    """`budget` has no default: each file of conf/budget adds one named limit, and +budget.mine.latency_ms=2.5 another; a limit
    may be [least, most], and have a `hardware` of its own or a `part` of the network.

    space: `name` and any of the space's limits; scorer and searcher: `name` and their options (a shipped name,
    `module:attribute`, or an installed entry point); image_size: side in pixels; curve: a search under each of several
    limits of one metric, `latency_ms:1.5:6:10` (from, to, how many) or [latency_ms,2,3,4]; start: published names and spec
    files to begin with; resume: the folder of a run that goes on, alone or with more evaluations.
    """

    budget: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any]
    scorer: dict[str, Any]
    searcher: dict[str, Any]
    neck: NeckOptions = field(default_factory=NeckOptions)
    image_size: Pixels = USUAL_SIDE
    start: tuple[Name, ...] = ()
    curve: Any = None
    resume: Name | None = None
    progress: bool = True

    @property
    def limits(self) -> dict[str, object]:
        """{cost: limit} of the budget, with the loosest limit of a curve."""
        if self.curve is None:
            return limits_of(self.budget)
        from nas.commands.search_curve import Curve

        curve, limits = Curve.of(self.curve), limits_of(self.budget) if self.budget else {}
        if curve.metric in limits:
            raise UserError(f"the curve limits {curve.metric}, and so does the budget: take one of them away")
        return limits | {curve.metric: curve.limits[-1]}

    @property
    def settings(self) -> SearchSettings:
        """The library's settings; raises UserError in one line for whatever is wrong with them."""
        from nas.searchers.settings import SearchSettings
        from search_spaces import find_space

        space, scorer, searcher = (named(getattr(self, group), group) for group in CHOSEN)
        return SearchSettings.of(
            budget=self.limits,
            space=find_space(space[0], **space[1]),
            scorer=scorer[0],
            scorer_options=scorer[1],
            searcher=searcher[0],
            searcher_options=searcher[1],
            frame=Frame.of(self.neck, self.image_size),
            **{name: getattr(self, name) for name in SearchOptions.__dataclass_fields__},
        )


def search_in(command: SearchCommand, folder: Path, given: Sequence[str] = ()) -> None:
    """Search in `folder`, or go on in that of the run to resume; `given`: the settings of the command line."""
    from nas.commands.search_screen import search_with_screen

    if command.resume is not None:
        folder = Path(command.resume)
        command, kept = continued(command, given, FREE, FURTHER), continued(command, (), FREE)
        if command.evaluations < kept.evaluations:
            told = f"{folder} is a search of {kept.evaluations:,} evaluations"
            raise UserError(f"{told}: it can go on to more, not to {command.evaluations:,}")
        for kind in CHOSEN:
            name = named(getattr(command, kind), kind)[0]
            if is_reference(name):
                loaded(name, kind, str(folder / "config.yaml"))
    settings = command.settings
    store_settings(command, folder, FREE)
    try:
        if command.curve is None:
            search_with_screen(settings, folder, command.progress)
        else:
            from nas.commands.search_curve import Curve, search_along

            search_along(settings, Curve.of(command.curve), folder, command.progress)
    except KeyboardInterrupt:
        if command.curve is not None or (folder / "state.npz").exists():  # it has come so far that it can go on
            print(f"stopped; go on with: python -m nas.search {continuation(folder, given, FREE)}", flush=True)
        raise


def limits_of(budget: Mapping[str, object]) -> dict[str, object]:
    """{cost: limit} of the budget group, whose entries are named limits; two limits on one cost are refused.

    An entry's `hardware` is another latency table for its milliseconds, its `part` the part of the network that it limits.
    """
    if not budget:
        names = sorted(path.stem for path in (Path(config_folder()) / "budget").glob("*.yaml"))
        raise UserError(f"no budget: add +budget=NAME (or '+budget=[NAME,NAME]'); there are {', '.join(names)}")
    limits: dict[str, object] = {}
    for name, entry in budget.items():
        pairs = dict(entry) if isinstance(entry, dict) else {name: entry}
        part, hardware = pairs.pop("part", ""), pairs.pop("hardware", "")
        if hardware and not set(TIMES) & set(pairs):
            raise UserError(f"budget.{name}.hardware={hardware} limits nothing: add +budget.{name}.latency_ms=...")
        for metric, limit in pairs.items():
            cost = metric + f".{part}" * bool(part) + f"@{hardware}" * (bool(hardware) and metric in TIMES)
            if cost in limits:
                raise UserError(f"two limits on {cost}: {shown(limits[cost])} and {shown(limit)}; keep one")
            limits[cost] = limit
    return limits


def named(entry: Mapping[str, object], group: str) -> tuple[str, dict[str, object]]:
    """Name and options of a chosen part; raises UserError without a name."""
    name = entry.get("name")
    if not isinstance(name, str):
        raise UserError(f"{group} needs a name")
    return name, {key: value for key, value in entry.items() if key != "name"}
