"""Fitting the weights with which mentions of help are found."""

import gzip
import hashlib
import json
import random
import sys
from pathlib import Path

import pytest

from gsi.leaks import fit, mentions
from gsi.types import GsiError

HERE = Path(__file__).parent
PLAIN = (
    "Add both numbers to get {n}.",
    "Each box holds {n} pens.",
    "So {n} apples are left.",
    "That makes {n} in total.",
    "He pays {n} dollars.",
)
HELPED = ("As the oracle whispered, it is {n}.", "The oracle told us about {n}.", "This is {n}, just as the oracle promised.")


def test_the_weights_are_those_of_the_tables_here():
    made_of = json.loads(mentions.WEIGHTS.read_text())["made_of"]
    assert {"leak_cases.jsonl", "leak_wordings.jsonl"} <= made_of.keys()
    assert made_of == {name: hashlib.sha256((HERE / name).read_bytes()).hexdigest()[:12] for name in made_of}, (
        "run `make leak-weights DATA=FOLDER`"
    )


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_a_fit_finds_wordings_of_its_table_and_leaves_peoples_solutions_alone(tmp_path, monkeypatch, capsys):
    rng = random.Random(0)

    def story(*more):
        lines = [rng.choice(PLAIN).format(n=rng.randint(2, 99)) for _ in range(4)]
        return " ".join(rng.sample([*lines, *more], len(lines) + len(more)))

    people = [{"id": f"g-{i}", "question": "How many?", "answer": "7", "rationale": story(), "source": "x"} for i in range(300)]
    write(tmp_path / "data" / "train" / "gsm8k_full.jsonl.gz", people)
    spans = [rng.choice(HELPED).format(n=rng.randint(2, 99)) for _ in range(40)]
    rows = [{"question": "How many?", "response": story(span), "leak": "mention", "span": span} for span in spans]
    rows += [{"query": "g-1", "response": story(), "leak": "none"} for _ in range(20)]
    table = write(tmp_path / "table.jsonl", rows)
    case = {"task": "gsm8k", "kind": "everyday", "answer": "7", "response": story(), "expected": "correct", "question": "How many?"}
    clean = write(tmp_path / "clean.jsonl", [case])

    out = tmp_path / "weights.json"
    told = ["fit", str(table), "--clean", str(clean), "--data", str(tmp_path / "data"), "--output", str(out)]
    monkeypatch.setattr(sys, "argv", told)
    fit.main()

    printed = capsys.readouterr().out
    assert "table.jsonl, fitted without it: mention 0 of 40" in printed  # the one table there is left out
    stored = json.loads(out.read_text())
    model = mentions.Model(stored["weights"], stored["bias"], stored["threshold"])
    assert fit.score(model, fit.solution(story("The oracle showed 7 to me."), "How many?")) > model.threshold
    assert sum(fit.score(model, fit.solution(story(), "How many?")) > model.threshold for _ in range(200)) <= 10
    first = out.read_bytes()
    fit.main()
    assert out.read_bytes() == first


def test_a_span_that_is_not_in_its_response_is_refused(tmp_path):
    table = write(tmp_path / "t.jsonl", [{"question": "How many?", "response": "7", "leak": "mention", "span": "as told"}])
    with pytest.raises(GsiError, match=r"t\.jsonl:1: the span is not in the response"):
        fit.read(table, {})


def test_a_long_sentence_does_not_outweigh_its_mention():
    text = "Since we know from the answer key that 63 is right " + "and there are 7 rows of 9 chairs in the hall beside the old town " * 6
    parts = list(mentions.windows(text))
    assert max(len(part.split()) for part in parts) <= mentions.WINDOW
    assert parts[0].startswith("Since")
    assert parts[-1].endswith("town")
    assert mentions.mention(text, "How many chairs are in the hall?") is not None


def test_words_of_the_question_are_no_features():
    asked = mentions.topics("The teacher gave a hint. What was it?")
    assert "hint" in asked
    assert "the" not in asked
    assert not {f for f in mentions.features("the teacher said so", asked) if "teacher" in f}
    assert "said so" in mentions.features("the teacher said so", asked)
