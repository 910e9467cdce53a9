"""Methods of other people: installed entry points, and modules and files that a person names."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType

from raygrid.core.errors import PluginError, SpecError, in_one_line

ENTRY_POINTS = "raygrid.methods"
_MODULE_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


def load_plugins(modules: tuple[str, ...]) -> None:
    """Import third-party methods: `load_installed`, and `modules`.

    A module is named as in an `import`, also one of the current folder, or by the path of its file.
    Raises SpecError, in one line, for one that is not there and for whatever goes wrong in it.
    """
    load_installed()
    for module in modules:
        try:
            _load(module)
        except (Exception, SystemExit) as error:
            name = Path(module).stem if _is_file(module) else module
            raise SpecError(f"--import {module}: {_told(error, name)}") from error


class _Progress:
    """How far the import of installed methods is.

    begun: it runs in the thread that holds `lock`. over: it came to its end.
    """

    lock = threading.RLock()
    begun = over = False


def load_installed() -> None:
    """Import what installed packages offer at the entry point `raygrid.methods`, once a process.

    The first look into a registry calls it. What is imported may look there too and finds what is
    there so far; other threads wait. Raises PluginError for a package that cannot be imported.
    """
    if _Progress.over:
        return
    with _Progress.lock:
        if _Progress.begun:
            return
        _Progress.begun = True
        try:
            _load_entries()
            _Progress.over = True
        finally:
            _Progress.begun = False


def _load_entries() -> None:
    for entry in _installed():
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            package = entry.dist.name if entry.dist else "a package"
            raise PluginError(
                f"the installed package {package} offers {entry.name} = {entry.value} to raygrid "
                f"and cannot be imported: {_told(error, entry.module)}; mend or uninstall it"
            ) from error


def _installed() -> metadata.EntryPoints:
    return metadata.entry_points(group=ENTRY_POINTS)


def refuse_unsent(methods: Iterable[object], modules: tuple[str, ...]) -> None:
    """Raise SpecError for a method that processes elsewhere do not know.

    They import raygrid, what installed packages offer, and `modules`, with all that these import:
    with any of those only a script or a notebook itself is sure not to be among them.
    """
    more = bool(modules or _installed())
    for cls in map(type, methods):
        home = cls.__module__
        if home.partition(".")[0] == "raygrid" or (more and home != "__main__"):
            continue
        script = 'put it in a file and give imports=("file.py",)'
        remedy = script if home == "__main__" else f'give --import {home} or imports=("{home}",)'
        raise SpecError(
            f"{getattr(cls, 'id', cls.__name__)} is defined in {home}, which workers do not "
            f'import: {remedy}, or executor="inline"'
        )


def absolute(module: str) -> str:
    """The same module for processes in other folders."""
    return str(Path(module).absolute()) if _is_file(module) else module


def _is_file(module: str) -> bool:
    return module.endswith(".py") or "/" in module or os.sep in module


def _load(module: str) -> None:
    if _is_file(module):
        _load_file(Path(module).absolute())
        return
    if not _MODULE_NAME.match(module):
        raise SpecError(
            "it is neither a module, such as my_package.attacks, nor a file, such as my_attack.py"
        )
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:  # an installed command does not look there
        sys.path.append(here)
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise SpecError(f"there is no such module, installed or in {here}") from None


def _load_file(path: Path) -> None:
    """Import a file under the name of its stem, once; modules beside it are found, too."""
    if path.suffix != ".py" or not path.is_file():
        raise SpecError("there is no such file, or it does not end with .py")
    if not _MODULE_NAME.match(path.stem):
        raise SpecError(f"{path.stem!r} cannot be the name of a module")
    known = sys.modules.get(path.stem)
    if known is not None:
        if _file_of(known) == path.resolve():
            return
        raise SpecError(f"a module {path.stem} is there already; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made
    if str(path.parent) not in sys.path:  # for good: what is imported in a function is found later
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[path.stem]
        raise


def _file_of(module: ModuleType) -> Path | None:
    name = getattr(module, "__file__", None)
    return Path(name).resolve() if name else None


def _told(error: BaseException, module: str) -> str:
    """What went wrong in a module: its kind, its words, and the file and line.

    The line is the last one of the module and of those beside it, not of what they call.
    """
    if isinstance(error, SpecError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    words = in_one_line(error) if isinstance(error, Exception) else str(error)
    return f"{type(error).__name__}: {words}{_place(error, module)}"


def _place(error: BaseException, module: str) -> str:
    frames = list(traceback.walk_tb(error.__traceback__))
    files = [(Path(frame.f_code.co_filename), line) for frame, line in frames]
    names = [frame.f_globals.get("__name__") for frame, _ in frames]
    folder = next((f.parent for (f, _), n in zip(files, names, strict=True) if n == module), None)
    own = [f" ({file}, line {line})" for file, line in files if file.parent == folder]
    return own[-1] if own else ""
