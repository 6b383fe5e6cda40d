"""The lab's task over reasoning-gym: levels, references and checks of real word problems."""

import builtins
import importlib.util
from collections import Counter
from pathlib import Path

import pytest
import scripted

import gsi
from gsi.cli import main
from gsi.config.data import Task
from gsi.lab import gsm_symbolic
from gsi.ledger import Ledger
from gsi.progress import Reporter
from gsi.tasks import check_golds, load
from gsi.types import GsiError
from gsi.verify import make_grader

STUDY = Path(__file__).parent.parent / "studies" / "gsm_symbolic.yaml"
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed (the extra `lab`)"
)


@pytest.fixture(scope="module")
def queries():
    return gsm_symbolic.queries(1, 5)


@needs_package
def test_queries_repeat_by_seed_and_do_not_depend_on_the_others(queries):
    assert Counter(q.level for q in queries) == dict.fromkeys(range(1, 8), 5)
    assert len({q.id for q in queries}) == len({q.question for q in queries}) == 35
    gsm_symbolic._block.cache_clear()
    assert gsm_symbolic.queries(1, 5) == queries
    assert set(gsm_symbolic.queries(1, 3, [7, 2])) <= set(queries)
    assert {q.question for q in queries}.isdisjoint(q.question for q in gsm_symbolic.queries(2, 5))


@needs_package
def test_references_hold_and_planted_errors_do_not(queries):
    grader = make_grader({"gsm_symbolic": None})
    try:
        kept, problems = check_golds(queries, grader)
        assert (len(kept), problems) == (35, [])
        for query in queries:
            good = grader.submit(query, query.rationale).result()
            assert (good.correct, good.steps_ok) == (True, True)
            lucky = grader.submit(query, f"First 17 * 3 = 52.\n{query.rationale}").result()
            assert (lucky.correct, lucky.steps_ok) == (True, False)
            wrong = grader.submit(query, query.rationale.rpartition("####")[0] + f"#### {query.answer}1").result()
            assert wrong.status == "wrong"
    finally:
        grader.close()


@needs_package
def test_a_level_with_too_few_questions(monkeypatch):
    monkeypatch.setattr(gsm_symbolic, "MAX_BLOCKS", 1)
    with pytest.raises(GsiError, match=r"seed 1 gave only \d+ different questions of level [67]"):
        gsm_symbolic.queries(1, 100)


@needs_package
def test_a_run(tmp_path, check_folder):
    tasks = [{"name": "gsm_symbolic", "args": {"seed": 1, "per_level": 2, "levels": [1, 3, 7]}}]
    changes = {"strategy": "state_reset", "accept": "steps", "tasks": tasks, "evaluate": {"validation": 0}}
    gsi.run(scripted.config(tmp_path / "run", **changes), reporter=Reporter("quiet"))
    assert check_folder(tmp_path / "run") == []
    ledger = Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True)
    assert {r.level for r in ledger.rows() if r.steps_ok and r.given} >= {7}
    ledger.close()


@pytest.mark.parametrize("level", [0, 8])
def test_a_level_that_does_not_exist(level):
    with pytest.raises(GsiError, match=f"gsm_symbolic: level {level} does not exist; use levels from 1 to 7"):
        gsm_symbolic.queries(1, 1, [level])


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "reasoning_gym":
            raise ModuleNotFoundError("No module named 'reasoning_gym'")
        return real(name, *args, **kwargs)

    gsm_symbolic._block.cache_clear()
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(GsiError, match=r"task gsm_symbolic: .*reasoning_gym.*pip install 'guided-self-improvement\[lab\]'"):
        load(Task(name="gsm_symbolic", args={"per_level": 1}))


@needs_package
def test_its_study_can_be_planned(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    few = STUDY.read_text().replace("per_level: 60", "per_level: 1, levels: [2, 3, 4]").replace("[1, 2, 3, 4, 5]", "[1]")
    Path("few.yaml").write_text(few)
    assert main(["study", "few.yaml", "--dry-run"]) == 0
    assert "nothing was run" in capsys.readouterr().out
