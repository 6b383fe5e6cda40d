"""The commands that start a program worker: in a bubblewrap sandbox, or plainly where a user accepts that."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import IO

from gsi.types import GsiError

INSTALL = "install it with `apt-get install bubblewrap` (Debian, Ubuntu) or `dnf install bubblewrap` (Fedora)"
LIBRARIES = ("numpy", "sympy", "mpmath", "gmpy2", "scipy", "networkx")  # what a program may import besides the standard library


def _library_paths() -> dict[str, str]:
    """name below one folder -> path, for every library that is installed, with the shared objects beside it."""
    found = {}
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec and spec.submodule_search_locations:
            folder = Path(next(iter(spec.submodule_search_locations)))
            found[name] = str(folder)
            if (libs := folder.parent / f"{name}.libs").is_dir():
                found[libs.name] = str(libs)
    return found


def folders() -> str:
    return os.pathsep.join(dict.fromkeys(str(Path(path).parent) for path in _library_paths().values()))


def _interpreter() -> list[str]:
    # -S: no site packages but the libraries above; -P: no folder of the script on the path
    return [os.path.realpath(sys.executable), "-P", "-s", "-S", "-B", "-X", "utf8"]


def plain() -> list[str]:
    return [*_interpreter(), str(Path(__file__).with_name("program_worker.py"))]


def isolated() -> list[str]:
    """The bwrap command up to the worker's arguments. Raises GsiError where bwrap is missing."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise GsiError(refusal(None, True))
    binds: list[str] = []
    for name in ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache"):
        path = Path(name)
        if path.is_symlink():
            binds += ["--symlink", os.readlink(path), name]
        elif path.exists():
            binds += ["--ro-bind", name, name]
    base = Path(sys.base_prefix)
    python = os.path.realpath(sys.executable)
    for path in (base / "lib", base / "lib64"):
        if path.is_dir() and not path.is_symlink() and str(path) not in ("/usr/lib", "/usr/lib64"):
            binds += ["--ro-bind", str(path), str(path)]
    binds += ["--ro-bind", python, python]
    for name, source in _library_paths().items():
        binds += ["--ro-bind", source, f"/libraries/{name}"]
    devices = [x for name in ("null", "zero", "full", "random", "urandom") for x in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")]
    environment = [x for key in ("PYTHONHASHSEED=0", "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1") for x in ("--setenv", *key.split("="))]
    # SYS_ADMIN, in the sandbox's own user namespace only, is for the worker, which gives every program its own
    # namespaces and drops all capabilities before the program's first line
    return [
        bwrap, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--uid", "1000", "--gid", "1000", "--hostname", "sandbox", "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN",
        "--clearenv", *environment, "--new-session", "--die-with-parent", *binds,
        "--ro-bind", str(Path(__file__).with_name("program_worker.py")), "/worker.py",
        "--dir", "/tmp", "--tmpfs", "/dev", *devices, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/",
        "--", *_interpreter(), "/worker.py",
    ]  # fmt: skip


def refusal(errors: IO[bytes] | None, sandboxed: bool) -> str:
    said = ""
    if errors is not None:
        errors.seek(0)
        said = " ".join(errors.read()[-500:].decode("utf-8", "replace").split())
    if not sandboxed:
        return f"programs cannot be run: the interpreter {sys.executable} did not start: {said or 'it said nothing'}"
    reason = (
        f"bubblewrap cannot make a sandbox here: {said or 'it said nothing'}"
        if errors is not None
        else "bubblewrap (bwrap) is not installed"
    )
    fix = INSTALL if errors is None else "allow unprivileged user namespaces, or use a machine or container that has them"
    return f"programs are run isolated, and {reason}; {fix}; or accept the risk with grading.allow_unisolated_programs: true"
