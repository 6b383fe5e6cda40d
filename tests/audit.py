"""Says what pip-audit found: `python tests/audit.py REPORT.json`. Exit code 1 for a known vulnerability; without its database nothing is known, which is said."""

import json
import sys
from pathlib import Path

path = Path(sys.argv[1])
found = json.loads(path.read_text(encoding="utf-8"))["dependencies"] if path.exists() else []
unknown = [d["name"] for d in found if "skip_reason" in d]
bad = [(d["name"], d["version"], v["id"], ", ".join(v["fix_versions"]) or "no fix yet") for d in found for v in d.get("vulns", ())]
for name, version, what, fix in bad:
    print(f"{name} {version}: {what} (fixed in: {fix})")
if len(unknown) == len(found):
    print("SKIPPED: the database of pip-audit cannot be reached here, so no dependency was audited")
else:
    print(
        f"{len(found) - len(unknown)} dependencies audited, {len(bad)} known vulnerabilities; not audited: {', '.join(unknown) or 'none'}"
    )
sys.exit(bool(bad))
