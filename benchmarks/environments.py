"""Where each implementation comes from: virtual environments made on demand, in a cache folder.

gevent and bridge never share an environment: only so is it certain that `import gevent` is the
real one in one column and bridge in the other. The asyncio column needs nothing but uvloop and lives
beside gevent.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).resolve().with_name("worker.py")
PEERS = ("gevent==26.9.*", "gunicorn>=23", "packaging", "uvloop; sys_platform != 'win32'")
CLEARED = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONDEVMODE",
    "PYTHONASYNCIODEBUG",
    "PYTHONTRACEMALLOC",
)
"""Variables that would make a worker import or do something else than the command line says."""


class Unavailable(Exception):
    """An implementation cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Implementation:
    """One column of the table, and the command whose arguments select the case."""

    name: str
    command: tuple[str, ...]


def cache_folder() -> Path:
    """Return the folder for environments and results, made if need be."""
    folder = os.environ.get("BRIDGE_BENCH_CACHE")
    cache = Path(folder) if folder else Path(tempfile.gettempdir()) / "bridge-bench-cache"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return cache.resolve()


def worker_environment() -> dict[str, str]:
    """Return the environment variables for workers: ours without those that would disturb."""
    kept = {name: value for name, value in os.environ.items() if name not in CLEARED}
    # the same hash seed for all, so that no one is luckier with its dictionaries
    return {**kept, "PYTHONHASHSEED": "0", "PYTHONPYCACHEPREFIX": str(cache_folder() / "pycache")}


def _run(command: list[str], what: str, seconds: float = 900) -> str:
    """Return the output of *command*; raise `Unavailable` with its last lines if it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            cwd=cache_folder(),
            env=worker_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{what}: no end after {seconds:g} s") from None
    if done.returncode:
        record = cache_folder() / "failed-environment.txt"
        record.write_text(done.stdout)
        last = done.stdout.strip().splitlines()[-1:]
        raise Unavailable(f"{what}: exit status {done.returncode} (all it said: {record}) {''.join(last)}")
    return done.stdout


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Keep a second run from making the same environment at the same time, where files can be locked."""
    with open(path, "w") as lock:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _environment(name: str, fingerprint: str, arguments: list[str]) -> str:
    """Return the interpreter of environment *name*, in which `pip install *arguments` was done.

    It is made anew when *fingerprint* is not the one it was made for.
    """
    folder = cache_folder() / f"{name}-{sys.implementation.cache_tag}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "made-for"
    want = f"{sys.version}\n{fingerprint}\n"
    with _exclusive(folder.with_suffix(".lock")):
        if stamp.exists() and stamp.read_text() == want:
            return str(python)
        print(f"making the environment {folder.name} …", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], "python -m venv")
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        _run([*pip, *arguments], "pip install")
        stamp.write_text(want)
    return str(python)


def _peers() -> str:
    return _environment("peers", " ".join(PEERS), list(PEERS))


def _imports_checkout(python: str) -> bool:
    """Whether `import bridge` there gives the one of this checkout."""
    try:
        output = _run([python, "-c", "import bridge; print(bridge.__file__)"], "import bridge", 60)
    except Unavailable:
        return False
    lines = output.split("\n")
    return any(line and Path(line).resolve().is_relative_to(CHECKOUT) for line in lines)


def _bridge() -> str:
    if _imports_checkout(sys.executable):
        return sys.executable
    project = CHECKOUT / "pyproject.toml"
    if not project.exists() or not (CHECKOUT / "bridge").is_dir():
        raise Unavailable("this checkout has no pyproject.toml and bridge/ to install")
    # an editable install follows the code; only what pyproject.toml says can make it stale
    digest = hashlib.sha256(project.read_bytes() + bytes(CHECKOUT)).hexdigest()
    place = hashlib.sha256(bytes(CHECKOUT)).hexdigest()[:8]
    python = _environment(f"bridge-{place}", digest, ["-e", str(CHECKOUT), "gunicorn>=23"])
    if not _imports_checkout(python):
        raise Unavailable(_why_not(python))
    return python


def _why_not(python: str) -> str:
    try:
        return "import bridge gives " + _run(
            [python, "-c", "import bridge; print(bridge)"], "import bridge", 60
        )
    except Unavailable as reason:
        return str(reason)


def gevent() -> Implementation:
    """Return how to run gevent's workers; raises `Unavailable`."""
    return Implementation("gevent", (_peers(), str(WORKER), "gevent"))


def bridge() -> Implementation:
    """Return how to run this project's workers; raises `Unavailable`."""
    return Implementation("bridge", (_bridge(), "-m", "bridge", str(WORKER), "bridge"))


def uvloop() -> Implementation:
    """Return how to run the workers of the asyncio twins; raises `Unavailable`."""
    python = _peers()
    _run([python, "-c", "import uvloop"], "import uvloop", 60)
    return Implementation("uvloop", (python, str(WORKER), "uvloop"))


def available() -> tuple[list[Implementation], dict[str, str]]:
    """Return the implementations that can be measured, and why the others can't (name: reason)."""
    found: list[Implementation] = []
    missing: dict[str, str] = {}
    for name, make in (("gevent", gevent), ("bridge", bridge), ("uvloop", uvloop)):
        try:
            found.append(make())
        except Unavailable as reason:
            missing[name] = str(reason)
    return found, missing
