"""Builds the optional extension modules and puts the folder compat/gevent into the wheel.

*compat/gevent* goes in as bridge/_compat/gevent. A `force-include` in pyproject.toml would say the same, but
hatchling applies that to editable installations too: site-packages would get a folder `bridge` without an
`__init__.py`, which python takes for a namespace package and prefers to the real one. An editable
installation needs no copy, since `bridge` finds the folder beside itself.

*bridge/_core/*.c* and *bridge/_aio/*.c* are accelerators that nothing needs: where there is no C compiler,
where it fails, and where BRIDGE_PURE is set in the environment, the wheel is a pure one. An editable
installation gets the extension modules beside their sources.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: where the sources of extension modules are; the first has what the others include
FOLDERS = (Path("bridge", "_core"), Path("bridge", "_aio"))


class Hook(BuildHookInterface[Any]):
    _folder: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"]["compat/gevent"] = "bridge/_compat/gevent"
        built = self._compile()
        if not built:
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for folder, file in built:
            if version == "standard":
                build_data["force_include"][str(file)] = str(folder / file.name)
            else:
                # replaced, not written over: a running process may have the old one mapped
                target = Path(self.root, folder, file.name)
                fresh = target.with_suffix(".new")
                shutil.copyfile(file, fresh)
                fresh.replace(target)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def _compile(self) -> list[tuple[Path, Path]]:
        """Return the extension modules, each with its folder; none if they can't be had or aren't wanted."""
        if os.environ.get("BRIDGE_PURE", "") not in ("", "0"):
            return []
        if sys.implementation.name != "cpython" or sys.platform == "win32":
            return []
        from setuptools import Distribution, Extension
        from setuptools.errors import BaseError, CCompilerError

        folder = self._folder = tempfile.mkdtemp(prefix="bridge-build-")
        included = str(Path(self.root, FOLDERS[0]))
        extensions: dict[str, tuple[Path, Any]] = {}
        for each in FOLDERS:
            for file in sorted(Path(self.root, each).glob("*.c")):
                # _switching.lines.c is a part of the module _switching
                name = ".".join((*each.parts, file.name.partition(".")[0]))
                if name not in extensions:
                    extensions[name] = each, Extension(
                        name, [], include_dirs=[included], extra_compile_args=["-fvisibility=hidden"]
                    )
                extensions[name][1].sources.append(str(file))
        modules = [extension for _folder, extension in extensions.values()]
        command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
        command.build_lib = folder
        command.build_temp = folder
        try:
            command.ensure_finalized()
            command.run()
        except (BaseError, CCompilerError, OSError) as error:
            print(f"The accelerators were not built: {error}. bridge works without, slower.", file=sys.stderr)
            return []
        return [(each, Path(command.get_ext_fullpath(name))) for name, (each, _) in extensions.items()]
