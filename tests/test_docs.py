"""The documentation: its programs print what it says, its links lead somewhere, nothing is left out.

A block ``python`` is a whole program, which is run in a process of its own; a block ``text`` right after it
is what it prints, with ``...`` for anything. A comment in front of the block tells more:
``<!-- python -m bridge -->`` and ``<!-- pytest -->`` how it is run, ``<!-- not run: why -->`` that it only
has to compile.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import pytest

import bridge

# each program runs in a process of its own
pytestmark = pytest.mark.engines("none")

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

#: Seconds after which a program counts as hung; each one needs less than one or two.
HUNG = 60

#: How pytest finds our plugin: by itself, where the distribution is installed with its entry point.
INSTALLED = any(point.value == "bridge.pytest_plugin" for point in entry_points(group="pytest11"))
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
PYTEST += [] if INSTALLED else ["-p", "bridge.pytest_plugin"]

BLOCK = re.compile(
    r"^(?:<!-- (?P<how>[^\n]*) -->\n)?```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)


class Snippet(NamedTuple):
    """A program in a page."""

    page: str
    line: int
    how: str
    code: str
    output: str | None


def snippets() -> list[Snippet]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            name = page.relative_to(DOCS).as_posix()
            found.append(Snippet(name, line, match["how"] or "", match["code"], match["output"]))
    return found


def needs(code: str) -> list[str]:
    """The libraries that a program imports and that are not installed."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return sorted(name for name in names - {"gevent"} if importlib.util.find_spec(name) is None)


def pattern(output: str) -> str:
    return ".*?".join(re.escape(part) for part in output.strip().split("..."))


@pytest.mark.parametrize("snippet", snippets(), ids=lambda snippet: f"{snippet.page}:{snippet.line}")
def test_programs_print_what_the_page_says(snippet: Snippet, tmp_path: Path) -> None:
    compile(snippet.code, snippet.page, "exec")
    if snippet.how.startswith("not run: "):
        return
    missing = needs(snippet.code)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    program = tmp_path / ("test_app.py" if snippet.how == "pytest" else "app.py")
    program.write_text(snippet.code, encoding="utf-8")
    commands = {
        "": [str(program)],
        "python -m bridge": ["-m", "bridge", str(program)],
        "pytest": [*PYTEST, str(program)],
    }
    done = subprocess.run(
        [sys.executable, *commands[snippet.how]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,  # some programs end with an error on purpose
    )
    printed = (done.stdout + done.stderr).strip()
    if snippet.output is None:
        assert done.returncode == 0 and not done.stderr, printed
    else:
        assert re.fullmatch(pattern(snippet.output), printed, re.DOTALL), printed


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")),
    reason="needs what `pip install '.[docs]'` installs",
)
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(tmp_path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "index.html").exists()


def test_every_page_is_reached_from_the_index() -> None:
    reached = set()
    left = [DOCS / "index.md"]
    while left:
        page = left.pop()
        if page in reached:
            continue
        reached.add(page)
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            left += [page.parent / f"{name}.md" for name in names]
    assert reached == set(PAGES)


def anchors(page: Path) -> set[str]:
    """What links may name in a page: its headings, as GitHub and MyST name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith(("http://", "https://")):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            assert file.exists(), f"{page.name}: {target}"
            if anchor:
                assert anchor in anchors(file), f"{page.name}: {target}"
        for name in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`<>]+)>?`", text):
            assert (page.parent / f"{name}.md").exists(), f"{page.name}: {name}"


def test_files_that_pages_speak_of_exist() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\b(?:examples|bridge|tests|benchmarks|tools|compat)/[\w./-]*\w", text):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def public_modules() -> set[str]:
    names = {module.name for module in pkgutil.walk_packages(bridge.__path__, "bridge.")}
    return {name for name in names if not any(part.startswith("_") for part in name.split("."))}


def test_every_public_module_is_in_the_reference() -> None:
    reference = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    documented = set(re.findall(r"^\.\. automodule:: (\S+)", reference, re.MULTILINE))
    assert public_modules() == documented - {"bridge._config"}


def test_every_name_of_the_package_is_in_the_reference() -> None:
    page = (DOCS / "api" / "bridge.md").read_text(encoding="utf-8")
    for name in [*bridge.__all__, "__version__"]:
        directive = rf"^\.\. (?:auto|py:)\w+:: {name}\b"
        assert re.search(rf"{directive}|`(?:bridge\.)?{name}`", page, re.MULTILINE), name


def test_the_settings_that_pages_name_exist() -> None:
    known = {"BRIDGE_PURE"}
    for setting in bridge.config.settings.values():
        known |= set(setting.environment_keys)
    for page in PAGES:
        found = set(re.findall(r"\bBRIDGE_[A-Z_]+\b", page.read_text(encoding="utf-8")))
        assert found <= known, f"{page.name}: {found - known}"


def test_the_page_of_compatibility_is_up_to_date_with_its_sources() -> None:
    """What is in the table of known failures and in the tool's data is on the page that was made of them."""
    page = (DOCS / "compatibility.md").read_text(encoding="utf-8")
    reasons = (ROOT / "tests" / "suites" / "known_failures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `.*? \| (.*?) \|$", reasons, re.MULTILINE)
    assert rows
    for reason in rows:
        assert reason in page
    known = tomllib.loads((ROOT / "tools" / "compatibility.toml").read_text(encoding="utf-8"))
    for library in known["libraries"].values():
        assert f"| {library['title']} | {library['tried']} |" in page
    for entry in [*known["modules"], *known["missing"]]:
        names = ", ".join(f"`{name}`" for name in entry["names"])
        assert f"\n| {names} |" in page
    passing = (ROOT / "tests" / "suites" / "gevent_passing.txt").read_text(encoding="utf-8")
    for module in set(re.findall(r"^(test_[^_]\w*)::", passing, re.MULTILINE)):
        assert f"| `{module}` |" in page


def test_every_twin_has_a_line_on_the_page_of_compatibility() -> None:
    known = tomllib.loads((ROOT / "tools" / "compatibility.toml").read_text(encoding="utf-8"))
    named = {name for entry in known["modules"] for name in entry["names"]}
    ours = {"asgi", "gunicorn", "pytest_plugin"}
    twins = {name.split(".")[1] for name in public_modules()}
    assert twins - ours <= named
