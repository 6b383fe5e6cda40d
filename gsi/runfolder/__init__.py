"""The run folder: config, stages, resume, and what happens when the config changes.

    opening.py    creates, resumes, restores and forks        fork.py, drift.py, lock.py, damage.py, models.py    its parts
    folder.py     `RunFolder`: stages and their files         state.py, versions.py    run.json

`run.json` is the only record of what is finished. A stage writes its files under other names, renames them, and is
marked done last, with the sums of its files; so after a crash a stage is either done or done again, nothing half-written
is ever read, and nothing that was damaged later is used unseen.
"""
