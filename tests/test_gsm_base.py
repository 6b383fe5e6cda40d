"""The base of `gsm_symbolic`: its own words for worked solutions, and the trunk that comes with the package."""

import importlib.util
import random
import re
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gsi.lab import gsm_base, gsm_symbolic
from gsi.lab.base import resolve
from gsi.lab.greedy import right
from gsi.lab.gsm_words import own_words
from gsi.types import GsiError, Query
from gsi.verify import make_grader
from gsi.verify.checks import check_number
from gsi.verify.steps import check_steps

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed (the extra `lab`)"
)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
COMMON = {Fraction(n) for n in ("1", "2", "3", "4", "7", "12", "24", "30", "52", "60", "100", "365", "1000", "1/4", "1/2", "3/4")}
PUZZLE = "Ray swims a mile in 16 minutes when it is cold, and in 3 minutes more than 2 times as long when it is warm. How much longer for 6 miles?"
PUZZLE_SOLUTION = (
    "Cold: 16 minutes\nWarm: 3+2(16)=35.0 minutes\nSo 6(16)=96 minutes and 6(35.0)=210.0 minutes\n210.0-96=114.0 minutes longer\n#### 114.0"
)


class First(random.Random):
    """Takes the first of any choice and swaps nothing."""

    def choice(self, seq):
        return seq[0]

    def random(self):
        return 0.9


@pytest.mark.parametrize(
    ("question", "solution", "answer", "words"),
    [
        ("26 girls, and 3 times the number of boys. How many?", "26 girls x 3 boys/girl = 78 boys\n26 girls + 78 boys = 104 kids", "104", ["26 * 3 = 78", "26 + 78 = 104"]),
        (PUZZLE, PUZZLE_SOLUTION, "114", ["2 * 16 = 32", "3 + 32 = 35", "6 * 16 = 96", "6 * 35 = 210", "210 - 96 = 114"]),
        ("A 308-page book, 1/4 is read. What is left?", "He read 308 pages x 1/4 = 77 pages.\nSo 308 pages - 77 pages = 231 pages are left", "231", ["308 / 4 = 77", "308 - 77 = 231"]),
        ("There were 112 bees and half as many grasshoppers.", "half * 112 bees = 56 grasshoppers\n56 grasshoppers + 112 bees = 168 insects", "168", ["0.5 * 112 = 56", "56 + 112 = 168"]),
        ("The 4 first have 700 flats each, the last 75% more than they. How many are there?", "It has 2800*0.75=2100 more\nso 2100+2800=4900 flats\n4900+2800=7700 in all", "7700", ["4 * 700 = 2800", "2800 * 0.75 = 2100", "2100 + 2800 = 4900", "4900 + 2800 = 7700"]),
        ("29 and 60 of 356 are purple. What percent?", "29 spools + 60 spools = 89 spools\n89 spools / 356 spools * 100% = 25%", "25", ["29 + 60 = 89", "89 / 356 = 0.25", "0.25 * 100 = 25"]),
        ("$470,000 and $410,000", "It is $470,000 - $410,000 = $60,000 more", "60000", ["470000 - 410000 = 60000"]),
        ("5 skeins for a hat, 6 for a pair of socks, for 2 children", "5 skeins per hat + 6 skeins per pair of leg warmers = 11 skeins\n2 * 11 = 22 skeins", "22", ["5 + 6 = 11", "2 * 11 = 22"]),
    ],
)  # fmt: skip
def test_own_words_are_the_calculations_of_the_solution(question, solution, answer, words):
    assert own_words(question, solution, answer, First()) == "\n".join([*words, f"#### {answer}"])


@pytest.mark.parametrize(
    ("question", "solution", "answer"),
    [
        (
            "75 blocks and 44 toys, 217 with the balls",
            "She has 75 + 44 + T = 119 + T = 217 toys\nT = 217 - 119 = 98",
            "98",
        ),  # 119 comes from nowhere
        ("13 tubes, half of them", "He has 13*0.5=6 tubes", "6"),  # rounded
        ("10 of 3", "Each has 10 / 3 = 3.3333 of them", "3.3333"),
        ("5 and 3", "There are 5 + 3 = 8", "9"),  # not the answer
        ("5 and 3", "There are eight.", "8"),
    ],
)
def test_what_cannot_be_told_is_left_out(question, solution, answer):
    assert own_words(question, solution, answer, First()) is None


@needs_package
@pytest.mark.parametrize("block", range(3))
def test_own_words_are_right_and_use_nothing_that_was_not_named_or_made(block):
    told = 0
    for _, question, answer, solution in gsm_symbolic.drawn(f"test/{block}"):
        words = own_words(question, solution, answer, random.Random(question))
        if words is None:
            continue
        told += 1
        query = Query("q", "gsm_symbolic", question, answer)
        assert check_steps(words) is True, words
        assert check_number(words, query).correct, words
        *lines, last = words.splitlines()
        made = set()
        spelled = [n for n, word in enumerate(NUMBERS) if word in question.lower()]
        named = {Fraction(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?(?<!,)", question)} | set(map(Fraction, spelled))
        named |= {part for n in named for part in (n / 100, 1 - n / 100, 1 + n / 100)} | COMMON
        for line in lines:
            a, op, b, _, value = line.split()
            x, y = Fraction(a), Fraction(b)
            assert {"+": x + y, "-": x - y, "*": x * y, "/": x / (y or 1)}[op] == Fraction(value)
            assert {x, y} <= named | made
            made.add(Fraction(value))
        assert Fraction(last.removeprefix("#### ")) in made
    assert told > 400  # of 480


@needs_package
def test_there_are_several_orders():
    found = [item for item in gsm_symbolic.drawn("test/0") if item[0] >= 4]
    orders = [{own_words(q, s, a, random.Random(i)) for i in range(8)} for _, q, a, s in found]
    assert sum(len(ways) > 1 for ways in orders) > len(orders) / 2


@given(st.lists(st.sampled_from(["12", "3.5", "+", "-", "*", "/", "(", ")", "=", "x", "hens", " ", "\n", "%", "$", ",", "0"]), max_size=40))
def test_any_text_is_told_rightly_or_not_at_all(parts):
    words = own_words("12 and 3.5", "".join(parts), "12", random.Random(1))
    assert words is None or check_steps(words) is True


@needs_package
def test_the_trunk_that_comes_with_the_package_solves_easy_problems():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gsm_base.TRUNK, dtype=torch.float32, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(gsm_base.TRUNK)
    assert tokenizer.decode(tokenizer("David has 1307.5 tulips.\n12 * 3 = 36")["input_ids"]) == "David has 1307.5 tulips.\n12 * 3 = 36"
    queries = gsm_symbolic.queries(7, 30, [2])
    asked = [Query(q.id, q.task, f"{q.question}\n", q.answer) for q in queries]
    grader = make_grader({"gsm_symbolic": None})
    try:
        assert right(model, tokenizer, asked, lambda text, query: grader.submit(query, text).result(), 128) >= 10
    finally:
        grader.close()


@needs_package
def test_a_base_is_the_trunk_trained_on_by_its_seed(tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("GSI_CACHE", str(tmp_path))
    monkeypatch.setattr(gsm_base, "BASE_STEPS", 4)
    folders = [resolve(f"lab:gsm_symbolic{seed}") for seed in ("", ":1", ":2")]
    assert folders[0] == folders[1] != folders[2]
    first, other = (AutoModelForCausalLM.from_pretrained(folder).model.embed_tokens.weight for folder in folders[1:])
    assert not torch.equal(first, other)
    assert (folders[0] / "recipe.json").exists()
    again = tmp_path / "again"
    gsm_base.build(again, 1)
    assert torch.equal(first, AutoModelForCausalLM.from_pretrained(again).model.embed_tokens.weight)
    with pytest.raises(GsiError, match="exists already"):
        gsm_base.build(again, 1)


def test_a_folder_that_is_there_is_refused_before_the_trunk_is_trained(tmp_path):
    with pytest.raises(GsiError, match="exists already"):
        gsm_base.build_trunk(tmp_path)


@needs_package
def test_the_trunk_can_be_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(gsm_base, "VOCABULARY_TEXTS", 300)
    gsm_base.build_trunk(tmp_path / "trunk", steps=20)
    made = {path.name for path in (tmp_path / "trunk").iterdir()}
    assert {path.name for path in gsm_base.TRUNK.iterdir()} == made


@pytest.mark.parametrize("name", ["lab:gsm_symbolic-qwen3", "lab:gsm_symbolic-taught:1", "lab:gsm_symbolic:x"])
def test_it_has_no_variants(name):
    with pytest.raises(GsiError, match=r"lab:untrained\[:SEED\] and lab:gsm_symbolic\[:SEED\]"):
        resolve(name)
