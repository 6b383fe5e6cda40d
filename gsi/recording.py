"""A teacher whose exchanges are kept: each is stored when it comes and never paid for twice."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from gsi.attempts import now
from gsi.ledger import Ledger
from gsi.types import Reply, Teacher

asking = threading.local()  # `.key`: (query id, iteration, attempt) that the current hint worker works for


class RecordingTeacher:
    """Asks `teacher` and stores the exchange under the attempt in `asking.key`.

    The recorded reply of an attempt serves again when the run resumes and the same messages are asked.
    """

    def __init__(self, teacher: Teacher, ledger: Ledger):
        self.teacher, self.ledger = teacher, ledger

    def ask(self, messages: Sequence[Mapping[str, str]]) -> Reply:
        reply = self.ledger.teacher_call(asking.key, messages)
        if reply is None:
            reply = self.teacher.ask(messages)
            self.ledger.add_teacher_call(asking.key, messages, reply, now())
        return reply
