"""Methods of other people: installed entry points, and modules and files that a person names."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

from raygrid.core.errors import SpecError, in_one_line

ENTRY_POINTS = "raygrid.methods"
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


def load_plugins(modules: tuple[str, ...] = ()) -> None:
    """Import third-party methods: installed entry points of `raygrid.methods`, and `modules`.

    A module is named as in an `import`, also one of the current folder, or by the path of its file.
    Raises SpecError, in one line, for one that is not there and for whatever goes wrong in it.
    """
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        entry.load()
    for module in modules:
        try:
            _load(module)
        except SpecError:
            raise
        except (Exception, SystemExit) as error:
            raise SpecError(f"--import {module}: {_told(error)}") from error


def absolute(module: str) -> str:
    """The same module for processes in other folders."""
    return str(Path(module).absolute()) if _is_file(module) else module


def _is_file(module: str) -> bool:
    return module.endswith(".py") or "/" in module or os.sep in module


def _load(module: str) -> None:
    if _is_file(module):
        _load_file(Path(module).absolute())
        return
    if not _NAME.match(module):
        raise SpecError(
            f"--import {module!r} is neither a module, such as my_package.attacks, nor a file, "
            f"such as my_attack.py"
        )
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:  # an installed command does not look there
        sys.path.append(here)
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise SpecError(
            f"--import {module}: there is no such module, installed or in {here}"
        ) from None


def _load_file(path: Path) -> None:
    """Import a file under the name of its stem, once."""
    if path.suffix != ".py" or not path.is_file():
        raise SpecError(f"--import {path}: there is no such file, or it does not end with .py")
    if not _NAME.match(path.stem):
        raise SpecError(f"--import {path}: {path.stem!r} cannot be the name of a module")
    known = sys.modules.get(path.stem)
    if known is not None:
        if _file_of(known) == path.resolve():
            return
        raise SpecError(f"--import {path}: a module {path.stem} is there already; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[path.stem]
        raise


def _file_of(module: ModuleType) -> Path | None:
    name = getattr(module, "__file__", None)
    return Path(name).resolve() if name else None


def _told(error: BaseException) -> str:
    """Kind and words of what went wrong in a module, and its file and line."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<frozen") and Path(file) != Path(__file__):
            place = f" ({file}, line {trace.tb_lineno})"
        trace = trace.tb_next
    words = in_one_line(error) if isinstance(error, Exception) else str(error)
    return f"{type(error).__name__}: {words}{place}"
