"""The packages that gsi needs here without its extras, pinned as in constraints.txt, one a line: `python tests/closure.py`. torch and what it alone needs stay out."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
OWN_BUILD = {"torch", "setuptools", "triton"}  # torch's build depends on the machine, and with it what it brings


def norm(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {norm(name): version for name, _, version in (line.split("#")[0].strip().partition("==") for line in lines) if version}


def closure() -> set[str]:
    wanted = [Requirement(d) for d in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]]
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        r = wanted.pop()
        key = norm(r.name), frozenset(r.extras)
        if key in seen or (key[0] in OWN_BUILD and key[0] != "torch") or key[0].startswith("nvidia-"):
            continue
        seen.add(key)
        for text in metadata.requires(r.name) or []:
            need = Requirement(text)
            if any(need.marker is None or need.marker.evaluate({"extra": extra}) for extra in ("", *r.extras)):
                wanted.append(need)
    return {name for name, _ in seen} - OWN_BUILD


if __name__ == "__main__":
    known = pins()
    if missing := sorted(closure() - known.keys()):
        sys.exit(f"constraints.txt does not pin {', '.join(missing)}")
    print("\n".join(f"{name}=={known[name]}" for name in sorted(closure())))
