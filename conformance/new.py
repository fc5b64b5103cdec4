"""`python -m conformance.new my_api`: a connector to start from, and its test, in the current folder."""

import keyword
import re
import sys
from importlib.util import find_spec
from pathlib import Path

TEMPLATES = Path(__file__).parent / "starting_point"
#: The name in the templates.
TEMPLATE = "my_api"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST = 24


class CannotWrite(Exception):
    """There will be no new connector; the text says why, and what to do."""


def write(name: str, folder: Path) -> list[Path]:
    """The new files, whole or not at all. Raises CannotWrite."""
    check_name(name)
    tests = folder / "tests" if (folder / "tests").is_dir() else folder
    files = {
        folder / f"{name}.py": TEMPLATES / f"{TEMPLATE}.py",
        tests / f"test_{name}.py": TEMPLATES / f"test_{TEMPLATE}.py",
    }
    for file in files:
        if file.exists():
            raise CannotWrite(f"{file.relative_to(folder)} is there already and stays as it is: choose another name")
    if find_spec(name) is not None:
        raise CannotWrite(f"there is a module {name} already, and one would hide the other: choose another name")
    for file, template in files.items():
        text = template.read_text(encoding="utf-8")
        file.write_text(text.replace(TEMPLATE, name).replace(TEMPLATE.upper(), name.upper()), encoding="utf-8")
    return list(files)


def check_name(name: str) -> None:
    if not name:
        raise CannotWrite("it needs a name: make new-connector NAME=my_api")
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or len(name) > LONGEST:
        raise CannotWrite(
            f"{name!r} cannot be its name: write small Latin letters, digits and single _, a letter first, at most "
            f"{LONGEST} of them, such as my_api"
        )


def main() -> int:
    name = (sys.argv[1] if len(sys.argv) > 1 else "").removesuffix(".py")
    try:
        connector, test = (str(file.relative_to(Path.cwd())) for file in write(name, Path.cwd()))
    except (CannotWrite, OSError) as error:
        print(f"no connector was written: {error}", file=sys.stderr)
        return 1
    print(f"{connector}: the connector; what to change in it is marked CHANGE")
    print(f"{test}: its test")
    print(f"Next: make check-connector CONNECTOR={name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
