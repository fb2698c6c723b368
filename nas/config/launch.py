"""Runs a plain function under Hydra, with typos refused and every failure told in one line."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from nas.errors import Caution, UserError
from nas.extensions import Kind, installed, is_reference, use
from nas.options import check_fields

#: No number has so many digits; Python stops reading whole ones at 4,300.
_DIGITS = 400


def config_folder() -> str:
    """The folder of the YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if folder.is_dir():
            return str(folder)
    raise UserError("the folder conf/ is missing; reinstall maenas")


def launch(name: str, schema: type, run: Callable[[Any], Any], folder: str | None = None) -> None:
    """Compose `folder`/`name`.yaml on `schema` with the command line, call run(config), exit 1 with one line on failure.

    `folder` None is conf/. `schema` is a dataclass; the file lists it first in its defaults as `<name>_schema`, so that a
    misspelt key, a wrong type or a value outside its annotated range (`nas.options`) is an error before anything runs.
    In a sweep the jobs after a failed one still run, and every failed one has its line. `use=[module,...]` imports modules
    of one's own before anything is read; it is for the command line alone, so that no stored configuration holds it.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    tell_cautions()
    # Hydra creates its run folder at once; a resumed run has one, and a mistyped one must not come into being.
    OmegaConf.register_new_resolver("run_folder", lambda resume, new: "." if resume else new, replace=True)
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    modules, arguments = _used(sys.argv[1:])
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
        try:
            use(modules)
            check_config(schema, config)
            run(config)
        except (UserError, OmegaConfBaseException, OSError) as error:
            job = HydraConfig.get()
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
        sys.argv = given
    if failed_jobs:
        sys.exit(f"error: {len(failed_jobs)} of the sweep's jobs failed: {', '.join(failed_jobs)}")
    if failures:
        sys.exit(f"error: {one_line(failures[0])}")


def _used(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules of `use=[...]`, and the other arguments."""
    uses = [argument for argument in arguments if argument.lstrip("+").startswith("use=")]
    names = [name.strip(" '\"") for text in uses for name in text.partition("=")[2].strip("[]'\" ").split(",")]
    return [name for name in names if name], [argument for argument in arguments if argument not in uses]


def offer_own(arguments: Sequence[str]) -> None:
    """Let Hydra choose code of one's own: every `module:attribute` that stands where a group is chosen, and every installed
    entry point, is an option of its group. Nothing is imported."""
    from hydra.core.config_store import ConfigStore

    kinds: tuple[Kind, ...] = ("space", "scorer", "searcher")
    for kind in kinds:
        values = [value for key, _, value in (text.partition("=") for text in arguments) if key.lstrip("+") == kind]
        names = {name for value in values for name in re.findall(r"[\w.]+:\w+", value) if is_reference(name)}
        for name in sorted(names | set(installed(kind))):
            ConfigStore.instance().store(group=kind, name=name, node={"name": name})


def check_config(schema: type, config: Any) -> None:
    """Raise UserError for the first setting that the annotations of `schema` refuse, that it lacks, or that it does not
    have (Hydra lets `+name=value` add anything)."""
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} is not given: add {missing[0]}=...")
    check_fields(schema, cast(dict[str, Any], OmegaConf.to_container(config, resolve=True)))


def tell_cautions() -> None:
    """Show reservations about a result as one line, without the place in the source."""
    plain = warnings.formatwarning

    def shown(message: Any, category: type[Warning], *where: Any, **line: Any) -> str:
        return f"warning: {message}\n" if issubclass(category, Caution) else plain(message, category, *where, **line)

    warnings.formatwarning = shown


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
