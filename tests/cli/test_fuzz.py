"""Whatever a person types: an answer or one line, never a traceback, and nothing written."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from raygrid.cli.main import main, parser
from raygrid.cli.methods import registries
from raygrid.core.errors import SpecError
from raygrid.core.spec import TrialSpec
from raygrid.engine.grid import plan
from raygrid.storage import limits

RANDOM = settings(
    settings.get_profile("random"),
    max_examples=2000,
    suppress_health_check=list(HealthCheck),
)
SMALL = settings(max_examples=50, suppress_health_check=list(HealthCheck))
ODD = [
    *("", " ", "-", "--", "-1", "0", "1e999", "nan", "inf", "1/0", "8/255", "l2:1.3", "2x", "l7:1"),
    *("true", "none", "@", "@nofile.txt", "@.", "()", "((", '"', "a=b", "lsp(", "lsp)", "x" * 300),
    *(
        "../x",
        "./x.py",
        "a b",
        "é",
        "\0",
        "\n",
        "\u2028",
        "%20?",
        "~",
        "🦊",
        "1" * 5000,
        "/dev/null",
    ),
    *("s3://me:pw@b", "http://127.0.0.1:1", "ftp://h", "://", "sqlite:///", "[::1", "1" * 5000),
]
COMMANDS = [
    "list",
    "show",
    "plan",
    "table",
    "report",
    "status",
    "evaluate",
    "figure",
    "poison",
    "sync",
]
# `run` with whatever is left out of it would run: it is always given a dataset that is not there.
FLAGS = sorted(
    flag
    for command in parser()._subparsers._group_actions[0].choices.values()  # type: ignore
    for action in command._actions
    for flag in action.option_strings
    if flag not in ("-h", "--help", "--out", "--data", "--datasets", "--dataset", "--address")
)
"""All that commands know but what says where things are: the test says that."""
NAMES = {kind: list(registry) for kind, registry in registries().items()}

text = st.one_of(st.sampled_from(ODD), st.text(max_size=8))
value = st.one_of(
    st.sampled_from(["true", "none", "8/255", "l2:1.0", "0", "-1", "1e9", "3", "0.5", '"a b"']),
    st.integers().map(str),
    st.floats().map(repr),
    text,
)


def parts(kind: str) -> st.SearchStrategy[str]:
    """A method of a kind, perhaps with parameters that it has, perhaps with any."""
    methods = registries()[kind]

    def with_params(name: str) -> st.SearchStrategy[str]:
        fields = list(methods[name].__dataclass_fields__)
        key = st.sampled_from([*fields, "x"]) if fields else st.just("x")
        pairs = st.lists(st.tuples(key, value), max_size=3)
        inner = pairs.map(lambda found: ", ".join(f"{k}={v}" for k, v in found))
        return inner.map(lambda words: f"{name}({words})" if words else name)

    return st.sampled_from(NAMES[kind]).flatmap(with_params)


absent = st.sampled_from(["cifar10", "svhn", "folder", 'folder(name="a b")'])
ratio = st.one_of(st.just(""), value.map(lambda v: f"@{v}"))
chain = st.lists(parts("defenses"), min_size=1, max_size=3).map("+".join)
spec = st.builds(
    lambda *pieces: "{}/{}{}/{}/{}/{}/{}/{}".format(*pieces),
    absent,
    parts("attacks"),
    ratio,
    chain,
    parts("architectures"),
    parts("learners"),
    parts("protocols"),
    st.one_of(st.integers(min_value=0).map(str), value),
)
broken = st.tuples(spec, st.integers(0, 80), text).map(
    lambda found: found[0][: found[1]] + found[2] + found[0][found[1] :]
)
specs = st.one_of(spec, broken, text)
words = st.lists(
    st.one_of(st.sampled_from(FLAGS), specs, value, parts("attacks"), parts("defenses")), max_size=6
)
lines = st.one_of(
    st.tuples(st.sampled_from(COMMANDS), words).map(lambda f: [f[0], *f[1]]),
    st.tuples(st.sampled_from(["run", "plan"]), specs, words).map(lambda f: [f[0], f[1], *f[2]]),
    words,
)
LIST = re.compile(r"  - |skipped: |note: |\d+ faults, |nothing of this can be run|  ")


@contextlib.contextmanager
def elsewhere() -> Iterator[Path]:
    """An empty current folder, with files to be named in it; no dataset is anywhere."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)


def named(argv: list[str]) -> bool:
    """Whether specs are among the words; words that cannot be parsed name none."""
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        try:
            return bool(parser().parse_args(argv).specs)
        except SystemExit:
            return False


def typed(argv: list[str]) -> tuple[int, str, list[str]]:
    """Exit status, what stands on the standard error, and the files that are there afterwards.

    Without specs the grid of the axes has a dataset that is not there, so that nothing can run for
    long.
    """
    out, err = io.StringIO(), io.StringIO()
    axes = ["--datasets", "cifar10"] if argv[:1] in (["run"], ["plan"]) and not named(argv) else []
    with elsewhere() as folder:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main([*argv, *axes])
            except SystemExit as end:
                status = int(str(end.code or 0))
        left = [str(path) for path in folder.rglob("*")]
    return status, err.getvalue(), left


def check(argv: list[str]) -> None:
    """The property itself; a traceback is an error of the test already."""
    status, said, left = typed(argv)
    assert status in (0, 2), (argv, status, said)
    if status == 2:
        first, *rest = said.rstrip("\n").split("\n")
        told = [line for line in (first, *rest) if not LIST.match(line)]
        assert len(told) == 1, (argv, said)
        assert told[0].startswith("raygrid: "), (argv, said)
        assert left == [], (argv, left)


@SMALL
@given(lines)
@example(["run", "@nofile.txt"])
@example(["plan", "@."])
@example(["plan", "--import", ""])
@example(["plan", "--import", "../x"])
@example(["plan", "cifar10/lsp/none/resnet18/supervised/quick/0", "--out", "a\0b"])
@example(["poison", "cifar10", "lsp", "--gallery", "x.xyz"])
@example(["sync"])
@example(["run", "cifar10/lsp/none/resnet18/supervised/quick/" + "1" * 5000])
def test_a_command_line_is_answered_in_one_line(argv: list[str]) -> None:
    check(argv)


@pytest.mark.slow
@RANDOM
@given(lines)
def test_any_command_line_is_answered_in_one_line(argv: list[str]) -> None:
    check(argv)


def planned(text: str) -> None:
    """A spec is planned, or refused with a SpecError of one line."""
    try:
        found = plan([text], None)
    except SpecError as error:
        assert "\n" not in str(error) or "faults, nothing was started" in str(error)
        return
    for trial in (*found.trials, *found.derived):
        assert TrialSpec.parse(str(trial.spec)) == trial.spec
        assert trial.key


@settings(SMALL, max_examples=100)
@given(specs)
def test_a_spec_is_planned_or_refused(text: str) -> None:
    planned(text)


@pytest.mark.slow
@settings(RANDOM, max_examples=5000)
@given(specs)
def test_any_spec_is_planned_or_refused(text: str) -> None:
    planned(text)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda f: f.write_text("def broken(:\n"), r"SyntaxError: .* \(.*/my_attack.py, line 1\)"),
        (lambda f: f.write_text("\n1 / 0\n"), r"ZeroDivisionError: .* \(.*my_attack.py, line 2\)"),
        (lambda f: f.write_text("import nothing_such\n"), r"No module named 'nothing_such'"),
        (lambda f: f.write_text("raise SystemExit(3)\n"), "SystemExit: 3"),
        (lambda f: f.write_bytes(b"\xff\xfe"), "SyntaxError"),
        (lambda f: None, "there is no such"),
    ],
    ids=["syntax", "error", "lacks", "exits", "bytes", "absent"],
)
@pytest.mark.parametrize("name", ["my_attack", "my_attack.py", "./my_attack.py"])
def test_what_is_wrong_with_a_module_is_one_line(
    write: Callable[[Path], object],
    says: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path / "my_attack.py")
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert main(["list", "attacks", "--import", name]) == 2
    assert err.getvalue().count("\n") == 1
    assert re.search(f"^raygrid: --import .*my_attack.*{says}", err.getvalue()), err.getvalue()
    assert limits.MAX_GIB_VARIABLE
