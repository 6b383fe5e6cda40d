"""Studies in the scripted world: the whole matrix through `gsi study`, what it keeps, resumes and refuses."""

import json
import math
import random
import shutil
from pathlib import Path

import pytest
import scripted
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gsi import stats
from gsi.cli import main
from gsi.lab import findings
from gsi.lab.chance import lost_by_chance
from gsi.lab.collect import bits
from gsi.lab.matrix import arms, cells, load_study
from gsi.lab.study import Results
from gsi.strategies import CONTROLS

REAL = {"prompt": {"template": "{question} "}, "evaluate": {"validation": 0}}  # nothing scripted: the model has to be there


def study(tmp_path, **changes):
    data = {
        "name": "small",
        "output_dir": str(tmp_path / "runs"),
        "results": str(tmp_path / "small.jsonl"),
        "seeds": [1],
        "models": {"made_up": "base"},
        "tasks": {
            "chain": {
                "tasks": [{"name": "chain", "args": {"seed": "{seed}", "per_level": 4}}],
                "evaluate": {"tasks": [{"name": "chain", "args": {"seed": "{fresh}", "per_level": 3}}]},
            }
        },
        "strategies": ["vanilla", "state_reset"],
        "config": {
            "iterations": 2,
            "accept": "steps",
            "prompt": {"template": "{question} "},
            "sample": {"k": 4, "wanted": 2},
            "engine": {"kind": "scripted", "function": f"{scripted.HERE}:respond"},
            "train": {"kind": "scripted", "function": f"{scripted.HERE}:train"},
            "evaluate": {"validation": 0, "trajectory": True},
        },
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(data | changes, sort_keys=False))
    return str(path)


def results(tmp_path):
    return {r["key"]: r for r in map(json.loads, (tmp_path / "small.jsonl").read_text().splitlines())}


def test_every_arm_with_its_controls_and_a_second_call_runs_nothing(tmp_path, capsys):
    path = study(
        tmp_path, controls=True, draws=16, equal_tokens=["vanilla", "state_reset"], strategies=["vanilla", "state_reset", "brute_force"]
    )
    assert main(["study", path, "--jobs", "2"]) == 0
    found = results(tmp_path)
    wanted = {"vanilla", "state_reset", "brute_force", "draws", "equal:vanilla", "equal:state_reset", *CONTROLS}
    assert {key.rpartition("/")[2] for key in found} == wanted
    printed = capsys.readouterr().out
    assert "13 of 13 cells to run" in printed

    record = found["made_up/chain/s1/state_reset"]
    assert len(record["iterations"]) == 3
    tests = record["iterations"][0]["tests"]["chain"]
    assert tests["levels"]["1"][0] == 3
    assert sum(bits(tests["items"])) == sum(right for _, right, _ in tests["levels"].values())
    first = record["iterations"][1]
    assert sum(first["rows"]["levels"].values()) == first["accepted"]["n"]
    assert first["accepted"]["identical"] == first["accepted"]["n"]  # chain has one right rationale, so no claim is to be made on it
    right, answered = first["covered"]
    assert right / 40 == pytest.approx(first["tail"]["tail/coverage"])
    assert right <= answered <= 40
    alone, helped = (
        [sum(counts[i] for counts in first[key].values()) for i in at] for key, at in (("unaided", (0, 1)), ("sample", (2, 3)))
    )
    assert 0 <= alone[1] / alone[0] < helped[1] / helped[0]  # the openings help
    assert record["pool"] == {str(level): 4 for level in range(1, 11)}

    plain, sham = (found[f"made_up/chain/s1/{arm}"]["iterations"][1]["kinds"] for arm in ("state_reset", "sham_hint"))
    assert plain["state_reset"][1] / plain["state_reset"][0] > sham["sham_state_reset"][1] / sham["sham_state_reset"][0]
    assert len(found["made_up/chain/s1/draws"]["right"]) == 40
    draws = found["made_up/chain/s1/draws"]
    assert all(right <= answers <= 16 for right, answers in zip(draws["right"], draws["answers"], strict=True))

    cut, full = (found[f"made_up/chain/s1/{arm}"]["iterations"] for arm in ("equal:state_reset", "state_reset"))
    fewest = min(found[f"made_up/chain/s1/{arm}"]["iterations"][-1]["rows"]["tokens"] for arm in ("vanilla", "state_reset"))
    assert full[-1]["rows"]["tokens"] > fewest >= cut[-1]["rows"]["tokens"] > 0.9 * fewest

    before = (tmp_path / "small.jsonl").read_text()
    assert main(["study", path]) == 0
    printed = capsys.readouterr().out
    assert "0 of 13 cells to run" in printed
    assert "another version" not in printed
    assert (tmp_path / "small.jsonl").read_text() == before

    (tmp_path / "small.jsonl").write_text(before.replace(record["code"], "0" * 12, 2))
    assert main(["study", path]) == 0
    assert "2 of the results" in capsys.readouterr().out


def test_arms_that_began_with_different_models_are_named(tmp_path, capsys):
    """As bases of one seed that were made on two kinds of processors are."""
    path = study(tmp_path, strategies=["vanilla"])
    assert main(["study", path]) == 0
    assert "warning" not in capsys.readouterr().out
    lines = (tmp_path / "small.jsonl").read_text()
    record = json.loads(lines)
    begun = record["iterations"][0]["tests"]["chain"]
    n, _, solved = begun["items"].partition(":")
    begun["items"] = f"{n}:{int(solved, 16) ^ 1:x}"
    (tmp_path / "small.jsonl").write_text(json.dumps(record) + "\n")
    assert main(["study", study(tmp_path, strategies=["vanilla", "state_reset"])]) == 0
    said = capsys.readouterr().out
    assert "warning: made_up/chain/s1/state_reset began with another model than made_up/chain/s1/vanilla" in said
    assert len(results(tmp_path)) == 2


def test_commands_that_share_a_file_of_results_keep_each_others(tmp_path):
    first, second = (Results(tmp_path / "shared.jsonl") for _ in range(2))
    first.add({"key": "a"})
    second.add({"key": "b"})
    first.add({"key": "c"})
    assert sorted(Results(tmp_path / "shared.jsonl").records) == ["a", "b", "c"]


def test_cells_of_lab_models_see_no_gpu(tmp_path, monkeypatch):
    """Their trainer is float32 on the CPU; an engine left to choose would draw in bfloat16 on a GPU."""
    from gsi.lab import study as running

    seen = {}

    def child(arguments, log, stop, gpu):
        seen[arguments[-1].rpartition("/")[2]] = running.environment(gpu).get("CUDA_VISIBLE_DEVICES")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(running, "_child", child)
    monkeypatch.setattr(running, "collect", lambda *args, **kwargs: {"iterations": []})
    for model in ("lab:chain", "lab:chain:{seed}", "base"):
        path = study(tmp_path, models={"made_up": model}, strategies=["vanilla"])
        assert main(["study", path]) == 0
        assert seen.pop("vanilla.yaml") == ("3" if model == "base" else "")
        assert set(seen.values()) <= {""}, "bases are built on the CPU too"
        (tmp_path / "small.jsonl").unlink()


def test_breadth_is_drawn_from_final_models_on_fresh_queries(tmp_path, capsys):
    settings = {"arms": ["vanilla"], "k": 4, "draws": 8, "per_level": 2}
    path = study(tmp_path, strategies=["vanilla"], pass_at=settings)
    assert main(["study", path]) == 0
    found = results(tmp_path)
    assert set(found) == {f"made_up/chain/s1/{arm}" for arm in ("vanilla", "pass:base", "pass:vanilla")}
    drawn = found["made_up/chain/s1/pass:vanilla"]
    assert drawn["levels"] == sorted(drawn["levels"], key=str)
    assert len(drawn["right"]) == 20  # two of each level
    assert drawn["draws"] == 8 >= max(drawn["right"])
    config = yaml.safe_load((tmp_path / "runs" / "made_up" / "chain" / "s1" / "pass-vanilla.yaml").read_text())
    assert config["model"].endswith("vanilla/iter_2/model")
    assert config["tasks"][0]["args"] == {"seed": 1_000_001, "per_level": 2}
    assert "| vanilla | 10 |" in findings.write([path])
    lines = (tmp_path / "small.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "small.jsonl").write_text("".join(line for line in lines if "pass:vanilla" not in line))
    shutil.rmtree(tmp_path / "runs" / "made_up")
    assert main(["study", path]) == 1
    assert "remove the line of made_up/chain/s1/vanilla" in capsys.readouterr().out
    assert main(["study", study(tmp_path, pass_at=settings | {"arms": ["vanila"]})]) == 2
    assert "pass_at.arms: unknown arm 'vanila'" in capsys.readouterr().err


def test_final_models_are_tested_again_on_other_questions(tmp_path, capsys):
    tasks = [{"name": "chain", "args": {"seed": "{again}", "per_level": 3, "levels": [1, 2]}}]
    path = study(tmp_path, strategies=["vanilla"], seeds=[1, 2])
    assert main(["study", path]) == 0
    first = findings.write([path])
    assert "Tested again" not in first
    other = study(tmp_path, strategies=["vanilla"], seeds=[1, 2], again={"arms": ["vanilla"], "than": "base", "tasks": tasks})
    assert main(["study", other]) == 2
    assert "again.than: unknown arm 'base'" in capsys.readouterr().err
    settings = {"arms": ["brute_force"], "than": "vanilla", "tasks": tasks}
    both = study(tmp_path, strategies=["vanilla", "brute_force"], seeds=[1, 2], again=settings)
    assert main(["study", both]) == 0
    found = results(tmp_path)
    drawn = found["made_up/chain/s2/again:brute_force"]
    assert (drawn["draws"], len(drawn["right"]), set(drawn["levels"])) == (1, 6, {1, 2})
    config = yaml.safe_load((tmp_path / "runs" / "made_up" / "chain" / "s2" / "again-brute_force.yaml").read_text())
    assert config["model"].endswith("brute_force/iter_2/model")
    assert config["tasks"][0]["args"]["seed"] == 2_000_002
    assert config["sample"]["temperature"] == 0
    text = findings.write([both])
    assert "#### Tested again" in text
    share = [sum(found[f"made_up/chain/s{s}/again:brute_force"]["right"]) / 6 for s in (1, 2)]
    row = next(line for line in text.splitlines() if line.startswith("| brute_force | mean |"))
    assert f"| {50 * sum(share):.1f} " in row
    assert next(line for line in text.splitlines() if line.startswith("| initial model | mean |")).count("|") == 8

    def easy(arm, seed):  # levels 7 to 10 are the hard ones
        levels = found[f"made_up/chain/s{seed}/{arm}"]["iterations"][-1]["tests"]["chain"]["levels"]
        return sum(right / asked for level, (asked, right, _) in levels.items() if int(level) < 7) / 6

    less = 50 * sum(easy("brute_force", s) - easy("vanilla", s) for s in (1, 2))
    row = next(line for line in text.partition("Easy accuracy, as is:")[2].splitlines() if line.startswith("| brute_force |"))
    assert row.split("|")[2].split()[0] == f"{less:+.1f}"


def test_a_factorial_shows_main_effects_and_interactions(tmp_path):
    crossed = {f"{a}{b}": {"strategy": "vanilla"} for a in "xy" for b in "pq"}
    factors = {"why": ["yp", "yq"], "queue": ["xq", "yq"]}
    path = study(tmp_path, strategies=[], arms=crossed, factors=factors, seeds=[1, 2])
    assert main(["study", path]) == 0
    assert "#### Effects" in findings.write([path])
    right = {"xp": (10, 30), "xq": (20, 40), "yp": (40, 40), "yq": (90, 70)}  # of 100, on hard levels, by seed
    lines = []
    for key, record in results(tmp_path).items():
        seed, arm = int(key.split("/")[2][1:]), key.rpartition("/")[2]
        if arm in right:
            levels = {str(level): [100, right[arm][seed - 1] if level > 6 else 50, 0] for level in range(1, 11)}
            record["iterations"][-1]["tests"]["chain"]["levels"] = levels
        lines.append(json.dumps(record))
    (tmp_path / "small.jsonl").write_text("\n".join(lines) + "\n")
    text = findings.write([path])
    # of the first: 65 - 15 and 55 - 35; of the second: 55 - 25 and 55 - 35; together: (90 - 20) - (40 - 10) and (70 - 40) - (40 - 30)
    for name, mean in (("why", 35), ("queue", 25), ("why x queue", 30)):
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |")).split("|")
        assert row[2].split()[0] == f"{mean:+.1f}"
        assert row[4].split()[0] == "+0.0"
    low, high = (
        float(x.strip("[],")) for x in next(line for line in text.splitlines() if line.startswith("| why |")).split("|")[2].split()[1:]
    )
    half = 12.706 * 15  # differences 50 and 20
    assert (low, high) == (pytest.approx(35 - half, abs=0.1), pytest.approx(35 + half, abs=0.1))
    (tmp_path / "small.jsonl").write_text("\n".join(line for line in lines if "yq" not in line) + "\n")
    assert "#### Effects" not in findings.write([path])


def test_methods_from_outside_stand_beside_the_arm_whose_cost_they_had(tmp_path):
    path = study(tmp_path, seeds=[1, 2])
    assert main(["study", path]) == 0
    assert "#### Rivals" not in findings.write([path])
    found = results(tmp_path)
    ours = []
    for seed in (1, 2):
        iterations = found[f"made_up/chain/s{seed}/state_reset"]["iterations"]
        levels = iterations[-1]["tests"]["chain"]["levels"]
        ours.append(sum(levels[str(level)][1] / levels[str(level)][0] for level in range(7, 11)) / 4)
        iterations[-1]["flops"] = 500  # a scripted model has no size, so no cost
    line = {"rival": "grpo", "learning_rate": 0.001, "temperature": 1.0, "arm": "state_reset", "tokens": 1000}
    before, after = ({str(level): share for level in range(1, 11)} for share in (0.0, 0.25))
    lines = [line | {"seed": seed, "before": before, "after": after, "flops": 1000} for seed in (1, 2)]
    lines.append(lines[0] | {"seed": 9})  # of no seed of this study
    lines.append(lines[0] | {"group": 16})  # the first ones do not say theirs
    (tmp_path / "small-rivals.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    without = next(line for line in findings.write([path]).splitlines() if line.startswith("| grpo |")).split("|")
    assert without[3].strip() == "0.001, 1, 8"
    assert without[9].strip() == "-"
    assert "| 0.001, 1, 16 |" in findings.write([path])
    (tmp_path / "small.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found.values()))
    row = next(line for line in findings.write([path]).splitlines() if line.startswith("| grpo |")).split("|")
    assert row[2].strip() == "nothing"
    assert row[5].split()[0] == "25.0"
    assert row[6].split()[0] == "+25.0"
    assert row[9].strip() == "200.0"
    assert row[10].split()[:2] == ["state_reset:", f"{100 * (sum(ours) / 2 - 0.25):+.1f}"]
    assert row[-2].strip() == "2"
    for seed in (1, 2):  # another study with the same results and an arm more
        found[f"made_up/chain/s{seed}/brute_force"] = found[f"made_up/chain/s{seed}/vanilla"] | {
            "key": f"made_up/chain/s{seed}/brute_force"
        }
    (tmp_path / "small.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found.values()))
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump(yaml.safe_load(Path(path).read_text()) | {"name": "more", "strategies": ["state_reset", "brute_force"]}))
    assert findings.write([str(more)]).count("#### Rivals") == 1
    text = findings.write([path, str(more)])
    assert text.count("#### Narrowing") == 2
    assert text.count("#### Rivals") == 1


def test_a_study_of_helpers_shows_only_what_is_new(tmp_path):
    def write(file, **changes):
        folder = tmp_path / file
        folder.mkdir()
        data = yaml.safe_load(Path(study(tmp_path, strategies=["vanilla"], seeds=[1, 2])).read_text()) | changes
        (folder / "s.yaml").write_text(yaml.safe_dump(data))
        return str(folder / "s.yaml")

    tasks = [{"name": "chain", "args": {"seed": "{again}", "per_level": 3, "levels": [1, 2]}}]
    arms, more = write("arms"), write("more", name="more", again={"arms": ["vanilla"], "than": "vanilla", "tasks": tasks})
    assert main(["study", more]) == 0
    text = findings.write([arms, more])
    before, after = text.split("## Study `more`")
    assert "#### Narrowing" in before
    assert "#### Narrowing" not in after
    assert "#### Tested again" in after
    assert "Not run yet" not in after


def test_the_same_results_whatever_the_number_of_processes(tmp_path):
    texts = []
    for jobs in ("1", "2"):
        folder = tmp_path / jobs
        folder.mkdir()
        main(["study", study(folder, seeds=[1, 2]), "--jobs", jobs])
        texts.append({k: [i["tests"] for i in r["iterations"]] for k, r in results(folder).items()})
    assert texts[0] == texts[1]
    assert len(texts[0]) == 4


def test_a_failed_cell_is_reported_the_others_finish_and_only_it_runs_again(tmp_path, capsys):
    broken = tmp_path / "broken.py"
    broken.write_text("def respond(request, model):\n    raise RuntimeError('no luck')\n")
    own = {
        "unlucky": {"strategy": "vanilla", "engine": {"function": f"{broken}:respond"}},
        "after": {"strategy": "repeat_hard", "curate": {"like": "{run:unlucky}"}},
    }
    path = study(tmp_path, arms=own)
    assert main(["study", path]) == 1
    assert set(results(tmp_path)) == {"made_up/chain/s1/vanilla", "made_up/chain/s1/state_reset"}
    printed = capsys.readouterr().out
    assert "failed: made_up/chain/s1/unlucky" in printed
    assert "no luck" in printed
    assert "needs made_up/chain/s1/unlucky, which failed" in printed
    broken.write_text(f"import sys\nsys.path.insert(0, {str(scripted.HERE.parent)!r})\nfrom scripted import respond\n")
    assert main(["study", path]) == 0
    assert "2 of 4 cells to run" in capsys.readouterr().out
    assert len(results(tmp_path)) == 4


def test_a_dry_run_checks_everything_and_runs_nothing(tmp_path, capsys):
    assert (
        main(
            [
                "study",
                study(
                    tmp_path, controls=True, seeds=[1, 2, 3], strategies=["vanilla", "state_reset", "brute_force"], minutes={"default": 60}
                ),
                "--dry-run",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "30 cells" in printed
    assert "about 30.0 core-hours" in printed
    assert list(tmp_path.iterdir()) == [tmp_path / "small.yaml"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": ["vanila"]}, "unknown 'vanila'"),
        ({"tasks": {"x": {"tasks": [{"name": "chian"}]}}}, "chian"),
        ({"models": {"m": "lab:chian"}}, "lab:chian"),
        ({"models": {"m": "lab:chain-bert:{seed}"}}, "lab:chain-bert:1"),
        ({"models": {"m": "/no/such/folder"}, "config": REAL}, "s1/vanilla: model: /no/such/folder is no directory"),
        ({"models": {"m": "./gone"}, "config": REAL}, "s1/vanilla: model: ./gone is no directory"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 2, 1]}, "seeds: 1 is named twice"),
        ({"strategies": [], "controls": False}, "no arms"),
        ({"strategies": ["vanilla", "repeat_hard"]}, "curate.like"),
        ({"contrasts": [{"a": "state_reset", "b": "brute"}]}, "unknown arm 'brute'"),
        ({"contrasts": [{"a": "state_reset", "b": "vanilla"}] * 6}, "contrasts"),
        ({"equal_tokens": ["x"]}, "equal_tokens"),
        ({"factors": {"guided": ["state_rest"]}}, "factors.guided: unknown arm 'state_rest'"),
        ({"factors": {"guided": ["state_reset"], "own": ["vanilla"]}}, "guided and own are not crossed"),
        ({"arms": {"a": {"strategy": "vanilla", "sample": {"kk": 2}}}}, "unknown key 'sample.kk'"),
        ({"arms": {"a": {"strategy": "interactive"}}}, "teacher"),
        ({"strategie": ["vanilla"]}, "unknown key 'strategie' (did you mean 'strategies'?)"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(tmp_path, capsys, changes, message):
    for way in ([], ["--dry-run"]):
        assert main(["study", study(tmp_path, **changes), *way]) == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "small.yaml"]


def test_an_arm_that_trains_on_right_answers_is_measured_by_steps_like_the_others(tmp_path):
    config = yaml.safe_load(Path(study(tmp_path)).read_text())["config"] | {
        "engine": {"kind": "scripted", "function": f"{scripted.HERE}:lucky"}
    }
    assert main(["study", study(tmp_path, strategies=["vanilla"], arms={"answers": {"accept": "answer"}}, config=config)]) == 0
    by_steps, by_answers = (results(tmp_path)[f"made_up/chain/s1/{arm}"]["iterations"] for arm in ("vanilla", "answers"))
    assert by_steps[0]["tests"] == by_answers[0]["tests"]  # one model
    right, answers = (sum(c[i] for c in by_answers[0]["tests"]["chain"]["levels"].values()) for i in (1, 2))
    assert right < answers
    assert sum(by_answers[1]["rows"]["levels"].values()) > sum(by_steps[1]["rows"]["levels"].values())
    assert by_steps[1]["sample"] == by_answers[1]["sample"]  # lucky ones are counted, not taken for right
    assert sum(c[5] for c in by_answers[1]["sample"].values()) > 0


def test_an_arm_without_the_rationales_it_needs_is_refused(tmp_path, capsys):
    data = tmp_path / "data.jsonl"
    data.write_text('{"id": "1", "question": "1 + 1", "answer": "2"}\n')
    assert (
        main(["study", study(tmp_path, tasks={"own": {"tasks": [{"name": "auto", "path": str(data)}]}}, config={"accept": "answer"})]) == 2
    )
    error = capsys.readouterr().err
    assert "state_reset" in error
    assert "reference rationales" in error
    assert not (tmp_path / "runs").exists()


def test_results_of_another_config_are_not_mixed_in(tmp_path, capsys):
    path = study(tmp_path, strategies=["vanilla"])
    assert main(["study", path]) == 0
    data = yaml.safe_load(Path(path).read_text())
    data["config"]["sample"]["k"] = 5
    study(tmp_path, strategies=["vanilla"], config=data["config"])
    assert main(["study", path]) == 2
    assert "was made with another config" in capsys.readouterr().err


def test_arms_of_one_seed_share_data_and_seeds_do_not(tmp_path):
    loaded, mark = load_study(study(tmp_path, seeds=[1, 2]))
    todo = cells(loaded)
    tasks = {(c.seed, c.arm): (c.config["tasks"], c.config["evaluate"]["tasks"]) for c in todo}
    assert tasks[1, "vanilla"] == tasks[1, "state_reset"] != tasks[2, "vanilla"]
    assert tasks[1, "vanilla"][0] == [{"name": "chain", "args": {"seed": 1, "per_level": 4}}]
    assert len(mark) == 12
    assert list(arms(loaded)) == ["vanilla", "state_reset"]


# --------------------------------------------------------------------------------------------------- statistics


def test_intervals_and_tests_of_known_numbers():
    mean, low, high = stats.t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, round(low, 4), round(high, 4)) == (3.0, 1.0368, 4.9632)  # 3 +- 2.776 * 1.5811 / sqrt 5
    assert round(stats.t_quantile(0.975, 9), 4) == 2.2622
    assert stats.t_interval([0.5])[1:] == (-math.inf, math.inf)
    assert stats.sign_flip([1.0] * 5) == 2 / 32
    assert stats.sign_flip([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]) == 2 / 1024
    assert stats.sign_flip([1.0, -1.0]) == 1.0


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8))
def test_sign_flip_is_a_probability_and_ignores_the_sign(differences):
    p = stats.sign_flip(differences)
    assert 2 / 2 ** len(differences) <= p <= 1
    assert p == stats.sign_flip([-d for d in differences])


def test_lost_by_chance_agrees_with_simulation():
    rng = random.Random(1)
    rates = [rng.betavariate(0.5, 0.5) for _ in range(3000)]
    solved = [sum(rng.random() < p for _ in range(64)) for p in rates]
    lost = sum(any(rng.random() < p for _ in range(8)) and not any(rng.random() < p for _ in range(8)) for p in rates)
    assert abs(lost_by_chance(solved, 64, 8) - lost / 3000) < 0.012  # three standard errors of the simulation
    assert lost_by_chance([0] * 50, 64, 8) < 0.06
    assert lost_by_chance([64] * 50, 64, 8) < 0.001


def test_packed_items_come_back():
    assert bits("5:0c") == [0, 1, 1, 0, 0]
    assert bits("0:0") == []
