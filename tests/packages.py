"""Packages for tests of installing: made on the spot, so that no network is needed."""

import json
import zipfile
from pathlib import Path

__all__ = ["module", "requirements", "wheel"]


def wheel(folder: Path, name: str, version: str = "1.0") -> Path:
    """A Python package with one module that has a `VERSION`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


def requirements(wheels: Path, *lines: str) -> str:
    """The text of a requirements.txt for which only `wheels` is looked at."""
    return "\n".join(["--no-index", f"--find-links {wheels}", *lines, ""])


def module(folder: Path, name: str, **more: object) -> Path:
    """A Node package that exports its version."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"name": name, "version": "1.0.0", "main": "index.js", **more}
    (folder / "package.json").write_text(json.dumps(said))
    (folder / "index.js").write_text("module.exports = '1.0.0';\n")
    return folder
