"""The import ladder, as `proxy/__init__.py` states it, is kept by the code."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import proxy

ROOT = Path(proxy.__file__).parents[1]
MAP = str(proxy.__doc__)

#: The ladder from the top: what stands on each rung.
RUNGS = [{"app"}] + [set(re.findall(r"\w+", rung)) for rung in re.findall(r"->\s+{([^}]+)}", MAP)]
#: What connectors may import.
TOOLS = set(re.findall(r"\w+", re.findall(r"Connectors import\s+only\s+{([^}]+)}", MAP)[0])) | RUNGS[-1]

PARTS = [path for path in sorted(ROOT.glob("proxy/**/*.py")) if path != ROOT / "proxy/__init__.py"]
TOP = sorted(ROOT.glob("*.py"))
CONNECTORS = [path for path in TOP if path.stem.endswith("_connector")]
EMULATOR = sorted(ROOT.glob("emulator/**/*.py"))


def imports(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, at its top or within a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are written in full"
            if node.module == "proxy":
                yield from (f"proxy.{name.name}" for name in node.names)
            else:
                yield str(node.module)


def part(path: Path) -> str:
    """The name under which the map knows a file: a folder is one part."""
    return path.relative_to(ROOT / "proxy").parts[0].removesuffix(".py") if path in PARTS else path.stem


def parts_imported(path: Path) -> set[str]:
    """The parts and top-level files of ours that a file imports."""
    names = [name.removeprefix("proxy.").split(".")[0] for name in imports(path)]
    return set(names).intersection(*[{name for rung in RUNGS for name in rung}]) - {part(path)}


def rung(name: str) -> int:
    """From 0, the top, where everything stands that the map does not name."""
    return next((number for number, names in enumerate(RUNGS) if name in names), 0)


def names_of(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_the_map_names_every_part_and_nothing_else():
    """Whoever adds a file says in `proxy/__init__.py` where it stands."""
    named = [name for names in RUNGS for name in names]
    assert len(named) == len(set(named))
    assert set(named) == {part(path) for path in PARTS} | {"app", "proxy_request"}


@pytest.mark.parametrize("path", [ROOT / "app.py", ROOT / "proxy_request.py", *PARTS], ids=lambda path: path.stem)
def test_imports_go_downwards_only(path):
    """To a lower rung, or to a neighbour."""
    assert [name for name in sorted(parts_imported(path)) if rung(name) < rung(part(path))] == []


def test_neighbours_do_not_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for path in PARTS:
        graph.setdefault(part(path), set()).update(parts_imported(path))
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", PARTS, ids=names_of(PARTS))
def test_no_part_imports_a_file_from_the_top_level(path):
    """Parts are told by `app.py` what they need to know."""
    top = {path.stem for path in TOP} | {"emulator", "conformance", "benchmarks", "tests"}
    assert top.isdisjoint(name.split(".")[0] for name in imports(path))


@pytest.mark.parametrize("path", CONNECTORS, ids=names_of(CONNECTORS))
def test_connectors_import_only_what_is_made_for_them(path):
    assert parts_imported(path) <= TOOLS


def test_nobody_imports_a_connector_but_the_one_line():
    """In `proxy_request.py`, and there once: swapping it swaps the API."""
    connectors = {path.stem for path in CONNECTORS}
    importing = [path.name for path in (*TOP, *PARTS, *EMULATOR) for name in imports(path) if name in connectors]
    assert importing == ["proxy_request.py"]


@pytest.mark.parametrize("path", EMULATOR, ids=names_of(EMULATOR))
def test_the_emulator_imports_nothing_of_ours(path):
    """So that it cannot share our mistakes."""
    ours = {"proxy", *(path.stem for path in TOP)}
    assert ours.isdisjoint(name.split(".")[0] for name in imports(path))


@pytest.mark.parametrize("name", [path.stem for path in CONNECTORS])
def test_importing_a_connector_reads_no_setting_opens_no_connection_and_loads_no_sdk(name, tmp_path):
    """Only its use does; a wrong setting or a missing network cannot spoil the import."""
    story = f"""
import sys
calls = []
sys.addaudithook(lambda event, _: calls.append(event) if event.startswith("socket.") else None)
import {name}
from proxy import settings
print(settings._in_force, calls, sorted({{"gigachat", "openai", "httpx"}} & set(sys.modules)))
"""
    told = subprocess.run(
        [sys.executable, "-c", story],
        env={"PYTHONPATH": str(ROOT), "PORT": "abc", "GIGACHAT_SCOPE": "wrong"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.stdout, told.stderr) == ("[] [] []\n", "")
