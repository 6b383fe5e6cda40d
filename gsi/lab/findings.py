"""`python -m gsi.lab.findings STUDY.yaml... --output docs/findings.md`: every table and figure of the findings, from compact results alone.

Statistics: differences are between arms of the same seed (base model, data and run seed); t-interval over seeds, exact sign-flip p.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from gsi.lab.agreement import agreement
from gsi.lab.command import end
from gsi.lab.matrix import Contrast, Study, arms, load_study
from gsi.lab.outcomes import Table, tables
from gsi.lab.sections import ARM_HEADER, BESIDE, OF_MODELS, SECTIONS, arm_rows, chance
from gsi.lab.study import Results
from gsi.lab.texts import image, markdown


def write(paths: Sequence[str], heading: str = "", figures: Path | None = None, beside: Path = Path()) -> str:
    """The whole text. With `figures`, plots are written there and shown, their paths as seen from the folder `beside`."""
    lines = [heading.rstrip(), ""] if heading else []
    shown: list[Table] = []
    named: list[Contrast] = []
    seen: dict[str, set[str]] = defaultdict(set)  # by file of results: arms that an earlier study has shown
    for path in paths:
        study, mark = load_study(path)
        named += study.contrasts
        results = Results(study.results)
        lines += [f"## Study `{study.name}`", ""]
        found = tables(study, results)
        first = study.results not in seen  # what stands beside shared results is shown once
        kinds = tuple(kind for kind, there in (("pass:", study.pass_at), ("again:", study.again)) if there)
        own = {arm for table in found for arm in table.arms if _of(study, arm)}
        new, seen[study.results] = own - seen[study.results], seen[study.results] | own
        if not new:  # studies that share their results: what another has run is shown there
            found = []
        helped = all(arm.startswith(kinds) for arm in new)  # the arms are shown there, only what was made of their models is new
        cells = [r for table in found for arm in own & table.arms.keys() for r in table.arms[arm].values()]
        ran, code = (sorted({r[key] for r in cells if key in r}) for key in ("study", "code"))
        hours = sum(r["seconds"] for r in cells) / 3600
        made = f" (results made under {', '.join(ran)}, by the code {', '.join(code) or 'unknown'}); {len(cells)} cells, {hours:.1f} core-hours"
        lines += [f"`{path}`, hash {mark}{made if found else ''}.", ""]
        if study.exclusions:
            lines += ["Excluded beforehand: " + " ".join(study.exclusions), ""]
        missing = len(study.models) * len(study.tasks) * len(study.seeds) * len(arms(study)) - sum(
            len(table.arms.get(arm, {})) for table in found for arm in arms(study)
        )
        if study.closed:
            lines += [f"**Closed: {study.closed}. {missing} runs are missing, so no contrast is decided.**", ""]
        elif missing:
            lines += [f"**Unfinished: {missing} runs are missing, so no contrast is decided.**" if found else "**Not run yet.**", ""]
        for table in found:
            lines += [f"### {table.task}, {table.model}", ""]
            if not helped:
                if first:  # no run counts twice
                    shown.append(table)
                lines += _arms(table, figures, beside)
            for title, section in SECTIONS:
                if (section in OF_MODELS or not helped) and (first or section not in BESIDE) and (body := section(table)):
                    lines += [f"#### {title}", "", *body]
    return "\n".join([*lines, *agreement(shown, named, figures, beside)]).rstrip() + "\n"


def _of(study: Study, arm: str) -> bool:
    """Whether it is an arm of this study or a helper of one: others may share its file of results."""
    own = arms(study)
    kind, _, of = arm.rpartition(":")
    helper = {"": arm in own or (arm == "draws" and study.draws > 0), "equal": of in study.equal_tokens}
    helper |= {"pass": bool(study.pass_at), "again": bool(study.again)}
    return helper.get(kind, False)


def _arms(table: Table, figures: Path | None, beside: Path) -> list[str]:
    """The table of the arms, the chance line and the figures."""
    lines = [
        *markdown(ARM_HEADER, arm_rows(table)),
        chance(table),
        "",
    ]
    if figures:
        from gsi.lab.figures import write as draw

        lines += [image(caption, figures / file, beside) for file, caption in draw(table, figures)] + [""]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the findings of studies from their compact results.")
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--output", type=Path, help="file to write (default: print)")
    parser.add_argument("--heading", type=Path, help="text that goes before the tables")
    parser.add_argument("--figures", type=Path, help="folder for figures (SVG), which the text then shows")
    args = parser.parse_args()
    heading = args.heading.read_text(encoding="utf-8") if args.heading else ""
    text = write(args.studies, heading, args.figures, args.output.parent if args.output else Path())
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    end(main)
