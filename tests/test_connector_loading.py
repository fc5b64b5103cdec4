"""Connectors that cannot be had: each start fails with one sentence that says what is wrong, where, and what to do."""

import pytest
from processes import copy_tree, launch, swap_connector

SOUND = """
def validate_data(data): return True
async def request_api(data): return {}
def get_info(): return {}
"""

BROKEN = {
    "nowhere_to_be_found": (None, ["there is no connector module 'nowhere_to_be_found'", "beside app.py", "CONNECTOR"]),
    "needs_more": ("import no_such_package", ["needs the module 'no_such_package'", "pip install no_such_package"]),
    "is_no_python": ("def request_api(data:\n", ["is not valid Python", "line 1 of", "is_no_python.py"]),
    "fails": ("\n\nraise RuntimeError('no luck')", ["RuntimeError: no luck", "line 3 of", "startup()"]),
    "leaves": ("import sys; sys.exit(3)", ["failed to import: SystemExit: 3", "startup()"]),
    "lacks": ("def request_api(data): ...", ["lacks validate_data, get_info", "docs/connectors.md"]),
}
AT_START = {
    "wants_a_key": (
        "from proxy.errors import CredentialMissing\ndef startup(): raise CredentialMissing('put MY_KEY=... there')\n",
        ["put MY_KEY=... there"],
    ),
    "trips": ("import os\ndef startup(): os.environ['NO_SUCH_NAME']\n", ["trips failed in startup()", "NO_SUCH_NAME"]),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """The exit code and the words of every start that fails, all started together."""
    folder = tmp_path_factory.mktemp("broken")
    tree = copy_tree(tmp_path_factory.mktemp("tree"))
    codes = {name: code for name, (code, _) in BROKEN.items()}
    codes |= {name: SOUND + code for name, (code, _) in AT_START.items()}
    for name, code in codes.items():
        if code is not None:
            (folder / f"{name}.py").write_text(code)
    (folder / "sound.py").write_text(SOUND)
    processes = {name: launch(tree, folder / f"{name}.log", env={"CONNECTOR": name}, cwd=folder) for name in codes}
    for name in BROKEN:
        swapped = folder / f"swapped-{name}"
        swapped.mkdir()
        copy_tree(swapped)
        if codes[name] is not None:
            (swapped / f"{name}.py").write_text(str(codes[name]))
        swap_connector(swapped, name)
        processes[f"swapped {name}"] = launch(swapped, swapped / "log")
    path = str(folder / "sound.py")
    processes["a path"] = launch(tree, folder / "path.log", env={"CONNECTOR": path}, cwd=folder)
    processes["sandbox"] = launch(tree, folder / "sandbox.log", "--sandbox", env={"CONNECTOR": "sound"}, cwd=folder)
    processes["auto"] = launch(
        tree, folder / "auto.log", env={"CONNECTOR": "wants_a_key", "SANDBOX": "auto"}, cwd=folder
    )
    return {name: (process.wait(), process.output) for name, process in processes.items()}


def assert_refused(told: tuple[int, str], *parts: str) -> None:
    """One sentence that has all these parts, an exit code that scripts see."""
    code, words = told
    assert code == 1
    assert words.startswith("gigachat-proxy cannot start: ") and words.count("\n") == 1 and "Traceback" not in words
    assert [part for part in parts if part not in words] == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_connector_that_cannot_be_loaded_is_one_sentence(said: dict[str, tuple[int, str]], name: str) -> None:
    """What is wrong, where, and how to mend it, whether CONNECTOR or the swapped line names it."""
    assert_refused(said[name], name, *BROKEN[name][1])
    assert_refused(said[f"swapped {name}"], name, *BROKEN[name][1])


@pytest.mark.parametrize("name", AT_START)
def test_a_connector_that_cannot_start_is_one_sentence(said: dict[str, tuple[int, str]], name: str) -> None:
    """A missing credential in the connector's own words; anything else with its place."""
    assert_refused(said[name], *AT_START[name][1])


def test_a_path_is_no_name_of_a_connector(said: dict[str, tuple[int, str]]) -> None:
    """CONNECTOR names a module."""
    assert_refused(said["a path"], "not a module's name", "my_connector")


def test_the_emulator_stands_in_for_gigachat_alone(said: dict[str, tuple[int, str]]) -> None:
    """--sandbox would promise answers of the emulator while the connector calls its own API."""
    assert_refused(said["sandbox"], "SANDBOX=on", "connector sound calls another API")
    assert_refused(said["auto"], "put MY_KEY=... there")
