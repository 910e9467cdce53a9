"""What is written for contributors and for those who cite holds for the code."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

from raygrid.cli.methods import methods_page, registries
from raygrid.core.plugins import ENTRY_POINTS
from tests.test_layers import ORDER

ROOT = Path(__file__).parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()


def test_the_order_of_imports_is_the_tested_one() -> None:
    (listed,) = re.findall(r"```\n(core .*?)```", CONTRIBUTING, re.DOTALL)
    assert listed.replace("|", " ").split() == [room for room in ORDER if "__" not in room]


def test_the_files_that_are_named_exist() -> None:
    named = re.findall(r"`((?:[\w.]+/)+(?:[\w.]+)?)`", CONTRIBUTING)
    inside = ("trials/", "engine/", "tracking/")
    for path in named:
        base = ROOT / "raygrid" if path.startswith(inside) else ROOT
        assert (base / path).exists() or path in ("common/", "nn/"), path
    assert len(named) >= 12


def test_the_modules_that_the_code_names_exist() -> None:
    """Dotted names in backticks, which may end in what a module holds."""
    files = (ROOT / "raygrid").rglob("*.py")
    named = {
        (str(path.relative_to(ROOT)), name)
        for path in files
        if path.parent.name != "mlflow"  # whose tags look the same
        for name in re.findall(r"`(raygrid(?:\.\w+)+)`", path.read_text())
        if name != "raygrid.methods"  # an entry point
    }
    assert [(path, name) for path, name in named if not _is_there(name)] == []
    assert len(named) >= 8


def _is_there(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_every_kind_of_method_is_explained_with_a_file_to_imitate() -> None:
    rows = dict(re.findall(r"^\| (\w+) \| `raygrid/(\w+)/`", CONTRIBUTING, re.MULTILINE))
    assert set(rows.values()) == set(registries())


def test_the_methods_that_the_glossary_names_are_there() -> None:
    known = {name for registry in registries().values() for name in registry}
    named = set(re.findall(r"`([a-z_]+)`", GLOSSARY))
    others = {"inline", "ray", "smoke", "paper", "final_acc", "peak_acc", "code", "poison_val"}
    others |= {"probe", "probes", "probe_data", "probe_final"}
    assert named - others <= known
    assert len(named & known) >= 20


@pytest.mark.parametrize("word", ["driver", "claim", "mark"])
def test_words_that_options_and_rows_use_are_explained(word: str) -> None:
    assert GLOSSARY.count(f"\n- **{word}**: ") == 1


def test_the_entry_point_that_is_shown_is_the_one_that_is_read() -> None:
    page = (ROOT / "docs" / "add_an_attack.md").read_text()
    (shown,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    ((group, named),) = tomllib.loads(shown)["project"]["entry-points"].items()
    assert group == ENTRY_POINTS
    entry = EntryPoint("mine", named["mine"], group)
    assert (entry.module, entry.attr) == ("my_package.mine", None)


@pytest.mark.parametrize("page", ["docs/clusters.md", "README.md"])
def test_who_starts_a_cluster_reads_how_to_end_it(page: str) -> None:
    text = " ".join((ROOT / page).read_text().split())
    ends = "`ray down cluster.yaml` ends the head, which costs money until then; workers end by"
    assert 0 < text.index("ray up cluster.yaml") < text.index(ends)


@pytest.mark.parametrize("page", ["docs/clusters.md", "cluster.yaml"])
def test_the_port_that_is_open_to_the_world_is_named(page: str) -> None:
    """Ray's security group on AWS lets SSH in from anywhere."""
    text = " ".join((ROOT / page).read_text().replace("\n#", "").split())
    assert "Every port but SSH's (22, by key) stays closed to the world" in text


@pytest.mark.parametrize("page", ["install", "scales", "clusters", "faq"])
def test_a_card_is_a_methods_and_no_gpu(page: str) -> None:
    assert not re.findall(r"\bcards?\b", (ROOT / "docs" / f"{page}.md").read_text())


def test_every_variable_that_a_person_may_set_is_documented() -> None:
    files = (ROOT / "raygrid").rglob("*.py")
    read = {name for f in files for name in re.findall(r"\bRAYGRID_[A-Z_]+\b", f.read_text())}
    own = {"RAYGRID_INSIDE", "RAYGRID_LOGICAL_GPUS"}  # of raygrid's processes and tests
    table = (ROOT / "docs" / "install.md").read_text().partition("## Environment variables")[2]
    assert read - own == set(re.findall(r"\bRAYGRID_[A-Z_]+\b", table))
    assert own < read


def test_every_experiment_is_documented() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    scripts = {path.name for path in (ROOT / "experiments").glob("*.py")}
    assert {name for name in scripts if name not in pages} == set()
    assert len(scripts) >= 4
    for words in ("--detach", "--driver"):
        assert f"`{words}" in pages


def test_the_markers_of_the_tests_are_those_that_are_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    markers = {line.split(":")[0] for line in project["tool"]["pytest"]["ini_options"]["markers"]}
    assert set(re.findall(r"pytest -m (\w+)", CONTRIBUTING)) == markers


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= cited.keys()


@pytest.mark.parametrize("kind", sorted(registries()))
def test_the_page_of_every_kind_is_what_the_command_prints(kind: str) -> None:
    """To write it anew: `uv run raygrid list KIND --markdown > docs/methods/KIND.md`."""
    registry = registries()[kind]
    shipped = [name for name in registry if registry[name].__module__.startswith("raygrid.")]
    made = methods_page(kind, [registry.make(name) for name in shipped])
    assert (ROOT / "docs" / "methods" / f"{kind}.md").read_text() == made


def test_a_section_has_parameters_source_and_printed_numbers() -> None:
    page = methods_page("attacks", [registries()["attacks"].make("lsp")])
    for line in (
        "## lsp",
        "- **Paper**: Yu et al. 2022",
        "| `patch` | `8` |",
        "| `cifar10` | `lsp` | `standard` | `resnet18` |",
    ):
        assert line in page


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run([*command, ROOT / "docs", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {page.relative_to(tmp_path).with_suffix("") for page in tmp_path.rglob("*.html")}
    pages = {
        page.relative_to(ROOT / "docs").with_suffix("") for page in (ROOT / "docs").rglob("*.md")
    }
    assert pages <= built
    assert "aap" in (tmp_path / "methods" / "attacks.html").read_text()
