"""Hydra, beside the mains only here: settings composed from conf/ and checked, and the one wrapper of every main."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from nas import command_line
from nas.errors import UserError, tell_cautions
from nas.extensions import CHOSEN, installed, is_reference, use
from nas.files import claimed, config_folder
from nas.options import read_object
from nas.resume import uses

if TYPE_CHECKING:
    from omegaconf import DictConfig

Settings = TypeVar("Settings")
#: No number has so many digits; Python stops reading whole ones at 4,300.
_DIGITS = 400


def compose_config(name: str, schema: type[Settings], options: Mapping[str, object]) -> Settings:
    """The settings that the command line would give: conf/`name`.yaml on `schema` with overrides.

    options: values by dotted or nested key ({"data": "bccd", "trainer": {"epochs": 3}}). Raises UserError, in one line,
    for a key or a type that the command would refuse.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    offer_schema(name, schema)
    values = {key: value for key, value in _flat(options)}
    if isinstance(values.get("data"), str | Path):
        (chosen,) = offer_data([f"data={values['data']}"], print_lines=False)
        values["data"] = chosen.partition("=")[2]
    overrides = [f"{key}={json.dumps(value, default=str)}" for key, value in values.items()]
    inside = GlobalHydra.instance().is_initialized()  # a command that composes for another
    begun = nullcontext() if inside else hydra.initialize_config_dir(config_folder(), version_base="1.3")
    try:
        with begun:
            try:
                config = hydra.compose(name, overrides=overrides)
            except (ValueError, TypeError) as error:  # a group that is set to a number
                raise UserError(one_line(error)) from None
        return settings_of(schema, config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from None


def settings_of(schema: type[Settings], config: DictConfig, example: str = "") -> Settings:
    """A composed configuration as an object of its schema; example: a line to type, for who left something out.

    Raises UserError for the first setting that the annotations of `schema` refuse, that it lacks, or that it does not
    have (Hydra lets `+name=value` add anything).
    """
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        told = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not given"
        raise UserError(
            f"{told}: add {' '.join(f'{name}=...' for name in missing)}{f', as in: {example}' * bool(example)}"
        )
    values = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    return read_object(schema, values)


def offer_schema(name: str, schema: type) -> None:
    """Let conf/`name`.yaml list a settings dataclass as `<name>_schema`: misspelt keys and wrong types are then errors.

    Where it has a `space`, every shipped one can be chosen by name, with each of its limits as a field.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    # Hydra copies the store for each of the groups that --help lists, though it also copies every entry that it reads.
    type(store).__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    store.store(name=f"{name}_schema", node=hydra_schema(schema))
    if "space" in (item.name for item in dataclasses.fields(cast(Any, schema))):
        from search_spaces import find_space, space_names

        for space in space_names():
            store.store(group="space", name=space, node={"name": space, **find_space(space).limits()})
    if "scorer" in (item.name for item in dataclasses.fields(cast(Any, schema))):
        written = {path.stem for path in (Path(config_folder()) / "scorer").glob("*.yaml")}
        for scorer in command_line.options("scorer"):
            if scorer not in written:
                store.store(group="scorer", name=scorer, node={"name": scorer})


@cache
def hydra_schema(kind: type) -> type:
    """A settings dataclass in the few types that Hydra knows: words for a Literal, lists for tuples, no ranges.

    A field without a default has to be given. What Hydra cannot say, `check_fields` checks when all is composed.
    """
    hints = get_type_hints(kind)
    members = []
    for item in dataclasses.fields(cast(Any, kind)):
        value: Any = "???"
        if item.default is not dataclasses.MISSING:
            value = item.default
        elif item.default_factory is not dataclasses.MISSING:
            value = item.default_factory()
        plain = _plain_value(value)
        members.append((item.name, _plain_type(hints[item.name]), _default(plain)))
    return dataclasses.make_dataclass(kind.__name__, members)


def _default(value: Any) -> Any:
    return dataclasses.field(default_factory=lambda: value)


def _plain_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = {item.name: _plain_value(getattr(value, item.name)) for item in dataclasses.fields(value)}
        return hydra_schema(type(value))(**values)
    if isinstance(value, tuple | list):
        return [_plain_value(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _plain_type(annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = [_plain_type(part) for part in arguments if part is not types.NoneType]
        return Union[inner[0], None] if len(inner) == 1 and len(arguments) == 2 else Any
    if origin in (tuple, list, Sequence):
        return list[_plain_type(arguments[0])]  # type: ignore[misc]
    if origin in (dict, Mapping):
        return dict[str, _plain_type(arguments[1])]  # type: ignore[misc]
    if dataclasses.is_dataclass(annotation):
        return hydra_schema(cast(type, annotation))
    return str if origin is Literal or annotation is Path else annotation


def _flat(options: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def one_line(error: BaseException) -> str:
    """What is wrong, where, and what there is instead, in one line."""
    cause = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if cause is not None and lines[0].startswith("Error merging"):
        return one_line(cause)
    text = lines[0]
    places = [line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")]
    if places and places[0] not in text:
        text = f"{places[0]}: {text}"
    if text.startswith("Could not override"):
        text += " There is no such setting; see conf/ for those that exist."
    if text.startswith("Config group override"):
        text += "; a group such as data= takes the name of one of its files"
    options = getattr(error, "options", None)
    return f"{text}; there are {', '.join(sorted(options))}" if options else text


@dataclass(frozen=True)
class Job:
    """Where a command runs: its run folder, the settings of the command line as they were given (`use=` the last of them), and
    the folder of the sweep that it is a part of."""

    folder: Path
    given: tuple[str, ...]
    sweep: Path | None = None


def launch(
    name: str, schema: type[Settings], run: Callable[[Settings, Job], object], folder: str | None = None
) -> None:
    """Compose `folder`/`name`.yaml on `schema` with the command line, call run(settings, job), exit 1 with one line on failure.

    `folder` None is conf/. `schema` is a dataclass; the file lists it first in its defaults as `<name>_schema`, so that a
    misspelt key, a wrong type or a value outside its annotated range (`nas.options`) is an error before anything runs.
    In a sweep the jobs after a failed one still run, and every failed one has its line. `use=[module,...]` imports modules
    of one's own before anything is read; it is for the command line alone, so that no stored configuration holds it.
    """
    own = folder is None  # one of the commands of maenas, not an experiment
    if own and {"-h", "--help"} & set(sys.argv[1:]):
        command_line.show(command_line.help_text(name))
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    tell_cautions()
    # Hydra creates its run folder at once; a resumed run has one, and a mistyped one must not come into being.
    OmegaConf.register_new_resolver("run_folder", lambda resume, new: "." if resume else new, replace=True)
    offer_schema(name, schema)
    modules, arguments = uses(sys.argv[1:])
    try:
        if own:
            arguments = command_line.understood(name, arguments)
        if "data" in command_line.groups(name):
            arguments = offer_data(arguments)
        elif name == "search":
            arguments = [_num_classes(text) for text in arguments]
    except UserError as error:
        sys.exit(f"error: {error}")
    offer_own(arguments)
    failures: list[BaseException] = []
    failed_jobs: list[str] = []
    process = os.getpid()
    composing = True

    def task(config: Any) -> None:
        """Failures are kept here, as Hydra would print lines of its own and tell of a sweep's first failure alone; a job
        in another process has to raise its."""
        nonlocal composing
        composing = False
        job = HydraConfig.get()
        try:
            use(modules)
            settings = settings_of(schema, config, command_line.example(name) if own else "")
            with _own_folder(settings, Path(job.runtime.output_dir)):
                place, sweep = Path(job.runtime.output_dir), None
                if job.mode == RunMode.MULTIRUN:  # sweep.dir may hold the time of this process, not of the sweep
                    sweep = place.parents[len(Path(job.sweep.subdir).parts) - 1]
                uses = [f"use=[{','.join(modules)}]"] * bool(modules)
                run(settings, Job(place, (*job.overrides.task, *uses), sweep))
        except (UserError, OmegaConfBaseException, OSError) as error:
            if job.mode == RunMode.RUN:
                failures.append(error)
                return
            print(f"error in job {job.job.num} ({' '.join(job.overrides.task)}): {one_line(error)}", file=sys.stderr)
            if os.getpid() != process:
                raise
            failed_jobs.append(str(job.job.num))

    for argument in arguments:
        if re.search(rf"\d{{{_DIGITS},}}", argument):
            sys.exit(f"error: {argument[:40]}... holds a number of hundreds of digits")
    given, sys.argv = sys.argv, [sys.argv[0], *arguments]
    told, threading.excepthook = threading.excepthook, _tell_thread
    try:
        hydra.main(version_base="1.3", config_path=folder or config_folder(), config_name=name)(task)()
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        failures.append(error)
    except (ValueError, TypeError) as error:  # Hydra's words for a group that is set to a number
        if not composing:
            raise
        failures.append(error)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        sys.argv, threading.excepthook = given, told
    if failed_jobs:
        sys.exit(f"error: {len(failed_jobs)} of the sweep's jobs failed: {', '.join(failed_jobs)}")
    if failures:
        sys.exit(f"error: {one_line(failures[0])}")


def _own_folder(settings: object, folder: Path) -> AbstractContextManager[None]:
    """The run's folder claimed for this process. Nobody owns the working folder, the first process of torchrun owns for
    all, and any number may join a selection (it has a lease)."""
    resumed = getattr(settings, "resume", None)
    if resumed:
        folder = Path(resumed)
    joined = resumed is not None and (hasattr(settings, "lease") or not folder.is_dir())
    if joined or int(os.environ.get("RANK", 0)) or folder.resolve() == Path.cwd():
        return nullcontext()
    return claimed(folder)


def offer_own(arguments: Sequence[str]) -> None:
    """Let Hydra choose code of one's own: every `module:attribute` that stands where a group is chosen, and every installed
    entry point, is an option of its group. Nothing is imported."""
    from hydra.core.config_store import ConfigStore

    for kind in CHOSEN:
        values = [value for key, _, value in (text.partition("=") for text in arguments) if key.lstrip("+") == kind]
        names = {name for value in values for name in re.findall(r"[\w.]+:\w+", value) if is_reference(name)}
        for name in sorted(names | set(installed(kind))):
            ConfigStore.instance().store(group=kind, name=name, node={"name": name})


def offer_data(arguments: Sequence[str], print_lines: bool = True) -> list[str]:
    """Let Hydra choose data by its path: `data=~/my photos (1)` becomes an option with a plain name, in sweeps too.

    A name of conf/data wins over a folder of that name. Prints what was understood; raises UserError as find_data does.
    """
    from hydra.core.config_store import ConfigStore

    known = set(command_line.options("data"))

    def chosen(value: str) -> str:
        if value in known or re.match(r"[\[{]|\w+\(.*\)$", value) and not _is_there(value):
            return value
        from nas.data.by_path import find_data

        config, line = find_data(value)
        if print_lines:
            print(line, flush=True)
        name, number = config.name, 1
        while name in known:
            number += 1
            name = f"{config.name}_{number}"
        known.add(name)
        node = json.loads(json.dumps(asdict(config)).replace("${", "\\\\${"))  # as it is for OmegaConf
        ConfigStore.instance().store(group="data", name=name, node=node)
        return name

    read = []
    for text in arguments:
        key, _, value = text.partition("=")
        value = value.strip("'\"")
        if key == "data" and value:
            parts = [value] if _is_there(value) else value.split(",")
            text = f"data={','.join(map(chosen, parts))}"
        read.append(text)
    return read


def _num_classes(text: str) -> str:
    """`data=PATH` of a search, which needs nothing of data but how many classes a detector of it has."""
    key, _, value = text.partition("=")
    if key != "data" or not _is_there(value.strip("'\"")):
        return text
    from nas.data.by_path import find_data

    config, line = find_data(value.strip("'\""))
    count = len(config.names or config.classes or ())
    if not count:
        raise UserError(f"{text}: no file names the classes; say how many there are with neck.num_classes=3")
    print(f"{line}\nneck.num_classes={count}", flush=True)
    return f"neck.num_classes={count}"


def _is_there(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _tell_thread(ended: threading.ExceptHookArgs) -> None:
    """A thread that ended by an error; TensorBoard's writer hands a disk's refusal to its caller, who tells of it."""
    if not issubclass(ended.exc_type, OSError):
        threading.__excepthook__(ended)
