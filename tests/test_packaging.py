"""What an installation puts where, and that what README and CHANGELOG say is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import bridge

ROOT = Path(__file__).parents[1]

# everything here runs in processes of its own
pytestmark = pytest.mark.engines("none")


def build(kind: str, folder: Path) -> Path:
    """Have the build backend make a "wheel", an "editable" or an "sdist", as pip would; return the file."""
    pytest.importorskip("hatchling")
    out = python(f"import hatchling.build as b; print(b.build_{kind}({str(folder)!r}))", cwd=ROOT)
    return folder / out.splitlines()[-1]


def python(code: str, *arguments: str, cwd: Path, site: Path | None = None) -> str:
    """Run *code* in a new python that takes *site* for a site-packages folder; return what it prints."""
    start = ""
    if site is not None:
        # goes before the folder in which the project itself may be installed for these tests
        start = f"import site, sys; path = sys.path[:]; site.addsitedir({str(site)!r})\n"
        start += "sys.path[:] = path[:1] + sys.path[len(path):] + path[1:]\n"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", start + code, *arguments]
    process = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is unpacked."""
    file = build("wheel", tmp_path_factory.mktemp("wheel"))
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of an editable installation is unpacked."""
    file = build("editable", tmp_path_factory.mktemp("editable"))
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


def files(folder: Path) -> set[str]:
    return {
        str(file.relative_to(ROOT))
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".so"
    }


def test_wheel_holds_bridge_and_in_it_the_compat_folder(wheel: Path) -> None:
    assert {entry.name.partition("-")[0] for entry in wheel.iterdir()} == {"bridge", "gevent_bridge"}
    inside = {str(f.relative_to(wheel)) for f in wheel.rglob("*") if f.is_file() and f.suffix != ".so"}
    ours = {name for name in inside if name.startswith("bridge/")}
    compat = {name.replace("compat/", "bridge/_compat/", 1) for name in files(ROOT / "compat")}
    assert "bridge/_compat/gevent/coros.py" in compat and "bridge/py.typed" in ours
    assert ours == {name for name in files(ROOT / "bridge") if not name.endswith((".c", ".h"))} | compat


def test_wheel_is_for_one_platform_if_the_accelerator_is_built_else_pure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_PURE", "1")
    pure = build("wheel", tmp_path)
    assert pure.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(pure) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".so", ".c", ".h"))]
    monkeypatch.setenv("BRIDGE_PURE", "")
    with zipfile.ZipFile(build("wheel", tmp_path)) as archive:
        built = [name for name in archive.namelist() if name.endswith(".so")]
    if shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None:
        assert not built
    else:
        # _switching.lines.c is a part of _switching
        sources = {str(file.relative_to(ROOT)).partition(".")[0] for file in ROOT.glob("bridge/_*/*.c")}
        assert sorted(name.partition(".")[0] for name in built) == sorted(sources)


def test_wheel_is_pure_where_the_compiler_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    assert build("wheel", tmp_path).name.endswith("-py3-none-any.whl")


def test_sdist_holds_what_the_wheel_is_built_from(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    extra = {"pyproject.toml", "hatch_build.py", "LICENSE", "README.md"}
    assert files(ROOT / "bridge") | files(ROOT / "compat") | extra <= names


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_installation_gives_one_import_name(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = python(
        """
import bridge, importlib.util, os, sys
for name in ["compat", "tests", "examples", "benchmarks", "hatch_build", "gevent"]:
    spec = importlib.util.find_spec(name)
    assert spec is None or "site-packages" in str(spec.origin), spec
print(os.path.dirname(bridge.__file__))
bridge.install_as_gevent()
import gevent.queue, gevent.coros
assert gevent.queue is bridge.queue
print(gevent.coros.__file__)
""",
        cwd=tmp_path,
        site=request.getfixturevalue(kind),
    )
    package, coros = map(Path, out.split())
    if kind == "wheel":
        assert package == request.getfixturevalue("wheel") / "bridge"
        assert coros == package / "_compat" / "gevent" / "coros.py"
    else:
        assert package == ROOT / "bridge"
        assert coros == ROOT / "compat" / "gevent" / "coros.py"


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_installation_runs_programs(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "program.py").write_text("import gevent; print(gevent.spawn(lambda: 'ran').get())")
    run = "import runpy; runpy.run_module('bridge', run_name='__main__', alter_sys=True)"
    out = python(run, "program.py", cwd=tmp_path, site=request.getfixturevalue(kind))
    assert out == "ran\n"


def test_requirements() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert {re.split(r"[>=; ]", r)[0] for r in project["dependencies"]} == {"greenlet", "httptools", "uvloop"}
    assert {"test", "docs", "lint"} <= set(project["optional-dependencies"])


def test_changelog_knows_the_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", bridge.__version__)


def test_example_in_the_readme_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(example.splitlines()) <= 15
    (output,) = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    program = tmp_path / "example.py"
    program.write_text(example)
    process = subprocess.run(
        [sys.executable, "-W", "error", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (process.stdout, process.stderr) == (output, "")


def test_programs_that_the_readme_names_exist() -> None:
    named = re.findall(r"(?:examples|benchmarks|docs|tests)/[\w./-]*\w", (ROOT / "README.md").read_text())
    assert named and [name for name in named if not (ROOT / name).exists()] == []


def test_ci_runs_the_commands_of_the_readme() -> None:
    """.ci/run takes them from the README, by these marks."""
    commands = re.findall(r"```sh\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(commands) == 2 and not any("\n" in command for command in commands)
    assert "-m bridge examples/tutorial/" in commands[0] and commands[1].endswith("-m pytest")
