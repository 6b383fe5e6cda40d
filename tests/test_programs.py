"""Programs really run here: an attack suite inside the sandbox, what counts as a program's answer, and the way into a run.

After every attack the next verdict is right, no process is left, and the canaries outside are untouched.
"""

import gzip
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import scripted
from test_report import Page

import gsi
from gsi.cli import main
from gsi.config import load_config
from gsi.ledger import Ledger
from gsi.queries import load_data
from gsi.report.html import write_report
from gsi.types import GsiError, Query
from gsi.verify import CHECKERS, make_grader, program, with_programs
from gsi.verify.printed import as_answer
from gsi.verify.program import Outcome, ProgramRunner, program_rate, unfence

ROOT = Path(__file__).parent.parent
BRIEF = 1.0  # seconds for programs that never end by themselves; the others get 20 s, however slow the machine


@pytest.fixture(scope="module")
def runner():
    os.environ["GSI_CANARY"] = "secret-from-the-environment"
    try:
        found = ProgramRunner(1, 20.0)
    except GsiError as e:
        pytest.skip(str(e))
    yield found
    found.close()
    del os.environ["GSI_CANARY"]
    assert descendants() == set()


@pytest.fixture(scope="module")
def brief(runner):
    found = ProgramRunner(1, BRIEF)
    yield found
    found.close()


@pytest.fixture(scope="module")
def grader(runner):
    grader = with_programs(make_grader(dict.fromkeys(CHECKERS)), set(CHECKERS), timeout=20.0)
    yield grader
    grader.close()


def descendants() -> set[int]:
    """Processes below this test that belong to a sandbox, whichever namespace they live in."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.read_text().split(" (", 1)
        except OSError:
            continue
        parents[int(pid)] = int(rest.rsplit(")", 1)[1].split()[1])
    found: set[int] = set()
    todo = {p for p, above in parents.items() if above == os.getpid() and "bwrap" in (Path(f"/proc/{p}/cmdline").read_text())}
    while todo:
        found |= todo
        todo = {p for p, above in parents.items() if above in found} - found
    return found


@pytest.fixture
def outside(tmp_path):
    """A folder the programs are told of but must neither read nor change."""
    (tmp_path / "secret.txt").write_text("secret-from-a-file")
    return tmp_path


SPIN = "\nwhile True:\n    pass"
ATTACKS = [
    # processes
    ("fork bomb", "import os\nwhile True:\n    os.fork()", "process-limit"),
    ("fork bomb that goes on", "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass", "timeout"),
    ("forks by other names", "import multiprocessing\np = multiprocessing.Process(target=print)\np.start()", "process-limit"),
    ("shell", "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'touch {outside}/x'])", "process-limit"),
    ("thread bomb", "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(60,)).start()", "process-limit"),
    ("double fork", "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while True: pass\nprint(1)", "process-limit"),
    ("exec", "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'print(1)'])", "blocked"),
    # memory, time, stack
    ("memory bomb", "x = []\nwhile True:\n    x.append(bytearray(10**7))", "memory"),
    ("memory bomb in numpy", "import numpy\nx = numpy.zeros((10**5, 10**5))", "memory"),
    ("one huge list", "x = [0] * 10**11", "memory"),
    ("endless loop", "while True: pass", "timeout"),
    ("sleeps", "import time\ntime.sleep(1000)", "timeout"),
    ("loop that ignores signals", "import signal\nfor s in (2, 10, 12, 15, 24): signal.signal(s, signal.SIG_IGN)" + SPIN, "timeout"),
    ("deep recursion", "def f(n): return f(n + 1)\nf(0)", "error"),
    ("recursion in C", "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**5): x = [x]\nrepr(x)", ("crash", "error", "memory")),
    ("deep source", "print(" + "(" * 5000 + ")" * 5000 + ")", ("error", "memory", "crash")),
    ("null pointer", "import ctypes\nctypes.string_at(0)", "crash"),
    ("raises a limit", "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "error"),
    # output and disk
    ("endless output", "while True: print('x' * 1000)", "output-limit"),
    ("100 MB of output", "print('x' * 10**8)", "output-limit"),
    ("endless report", "import os\nwhile True: os.write(3, b'x' * 1000)", "output-limit"),
    ("endless stderr", "import sys\nwhile True: sys.stderr.write('x' * 10**5)", "timeout"),
    ("one big file", "open('/tmp/x', 'wb').write(bytes(10**8))", "disk-limit"),
    ("sparse file", "open('/tmp/x', 'wb').truncate(10**9)", "disk-limit"),
    ("many files", "for i in range(10**6): open(f'/tmp/{i}', 'wb').write(bytes(10**6))", "disk-limit"),
    ("many empty files", "for i in range(10**6): open(f'/tmp/{i}', 'w').close()", "disk-limit"),
    ("memory as a file", "import os\nfor i in range(10**6): os.write(os.memfd_create('x'), bytes(10**7))", "blocked"),
    # secrets and the outside
    ("reads a file", "print(open('{outside}/secret.txt').read())", "error"),
    ("reads shadow", "print(open('/etc/shadow').read())", "error"),
    ("reads the environment of others", "print(open('/proc/1/environ').read())", "error"),
    ("writes outside", "open('{outside}/x', 'w')", ("error", "blocked")),
    ("writes to the interpreter", "import os\nopen(os.__file__, 'a')", "blocked"),
    ("writes to a library", "import sympy\nopen(sympy.__file__, 'a')", "blocked"),
    ("writes beside the worker", "open('/x', 'w')", "blocked"),
    ("writes devices", "open('/dev/x', 'w')", "blocked"),
    ("input", "input()", "error"),
    # network
    ("tcp", "import socket\nsocket.create_connection(('127.0.0.1', {tcp}))", "blocked"),
    ("tcp by libc", "import ctypes\nprint(1 / (ctypes.CDLL(None).socket(2, 1, 0) + 1))", "error"),
    ("udp", "import socket\nsocket.socket(2, 2).sendto(b'x', ('127.0.0.1', {udp}))", "blocked"),
    ("unix", "import socket\nsocket.socket(1).connect('{outside}/unix')", "blocked"),
    ("abstract unix", "import socket\nsocket.socket(1).connect('\\0{abstract}')", "blocked"),
    ("url", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{tcp}')", ("blocked", "error")),
]  # fmt: skip


@pytest.fixture(scope="module")
def listeners(tmp_path_factory):
    """Sockets that must never hear anything: TCP, UDP, a unix path, an abstract unix name."""
    folder = tmp_path_factory.mktemp("sockets")
    name = f"gsi-test-{os.getpid()}"
    tcp, udp, unix, abstract = (socket.socket(*kind) for kind in ((2, 1), (2, 2), (1, 1), (1, 1)))
    for sock, place in ((tcp, ("127.0.0.1", 0)), (udp, ("127.0.0.1", 0)), (unix, str(folder / "unix")), (abstract, "\0" + name)):
        sock.bind(place)
        sock.setblocking(False)
        if sock is not udp:
            sock.listen()
    yield {"tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1], "unix": str(folder / "unix"), "abstract": name}
    for sock in (tcp, unix, abstract):
        with pytest.raises(BlockingIOError):
            sock.accept()
    with pytest.raises(BlockingIOError):
        udp.recv(1)
    for sock in (tcp, udp, unix, abstract):
        sock.close()


def undisturbed(runner, worker_pids, outside):
    assert runner.run("print(6 * 7)") == Outcome("ok", "42")
    assert runner.run("import os\nprint(os.listdir('/tmp'), os.getcwd())") == Outcome("ok", "[] /tmp")
    assert descendants() == worker_pids  # the same worker, and nothing else
    assert [p.name for p in outside.iterdir()] == ["secret.txt"]
    assert (outside / "secret.txt").read_text() == "secret-from-a-file"


@pytest.mark.parametrize(("name", "attack", "kinds"), ATTACKS, ids=[a[0] for a in ATTACKS])
def test_attack(runner, brief, outside, listeners, name, attack, kinds):
    runner = brief if kinds == "timeout" else runner
    before = descendants()
    for key, value in {**listeners, "outside": outside}.items():
        attack = attack.replace("{outside}/unix", listeners["unix"]).replace(f"{{{key}}}", str(value))
    outcome = runner.run(attack)
    assert outcome.kind in ((kinds,) if isinstance(kinds, str) else kinds), outcome
    assert outcome.answer is None
    assert "secret-from" not in outcome.message
    undisturbed(runner, before, outside)


SURVIVED = [  # attacks that end well for the program, and have no effect: (name, program, what it may answer)
    ("environment", "import os\nprint(dict(os.environ))", "{}"),
    ("environment by libc", "import ctypes\nprint(ctypes.CDLL(None).getenv(b'GSI_CANARY'))", "0"),
    ("deletes everything", "import shutil\nfor d in ('/libraries/sympy', '/libraries/mpmath', '/tmp', '/dev', '{outside}'): shutil.rmtree(d, ignore_errors=True)\nprint(5)", "5"),
    ("looks for others", "import os\nprint([p for p in range(1, 40000) if os.path.exists(f'/proc/{p}')])", "[]"),
    ("no other user", "import os\nprint(os.getuid(), os.getpid(), os.getppid())", "1000 1 0"),
    ("signals to all", "import os\nfor p in (-1, 0, 1, os.getppid()):\n    for s in (1, 2, 15, 19, 9):\n        try: os.kill(p, s)\n        except OSError: pass\nprint(5)", "5"),
    ("signals to every pid", "import os\nn = 0\nfor p in range(2, 70000):\n    try: os.kill(p, 9); n += 1\n    except OSError: pass\nprint(n)", "0"),
    ("system calls", "import ctypes\nc = ctypes.CDLL(None)\nprint(c.ptrace(16, 1, 0, 0), c.unshare(0x10000000), c.mount(b'x', b'/tmp', b'tmpfs', 0, None), c.setns(0, 0), c.shmget(0, 4096, 0o1777), c.chroot(b'/tmp'))", "-1 -1 -1 -1 -1 -1"),
    ("junk to every descriptor", "import os, pickle\nclass P:\n    def __reduce__(self): return os.system, ('touch {outside}/pwned',)\njunk = pickle.dumps(P()) + b'\\n{}[]' * 100\nfor fd in range(2, 300):\n    try: os.write(fd, junk)\n    except OSError: pass\nprint(5)", "5"),
    ("closes every descriptor", "import os\nprint(5, flush=True)\nos.closerange(0, 300)", "5"),
    ("forged value", "import os\nos.write(3, b'value\\n42')\nos._exit(0)", "42"),  # its own answer, nothing more
    ("forged error", "import os\nos.write(3, b'correct\\n')\nprint(5)", "5"),
    ("patched builtins", "import builtins, os\nprint(5, flush=True)\nfor n in ('str', 'print', 'open', 'len', 'isinstance', 'type', 'repr'): setattr(builtins, n, None)\nos._exit = os.write = None", "5"),
    ("patched exit", "import os, sys\nos._exit = sys.exit = lambda *a: None\nos.write = lambda *a: 0\nprint(5)", "5"),
    ("a value that lies", "class A(str):\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n    def __hash__(self): return 0\nanswer = A('5')", "5"),
    ("a str that is no text", "class A:\n    def __str__(self): return '5'\nanswer = A()", "5"),
    ("sys.exit", "import sys\nprint(5)\nsys.exit()", "5"),
    ("os._exit", "import os\nprint(5, flush=True)\nos._exit(0)", "5"),
    ("os._exit without a word", "import os\nos._exit(0)", None),
    ("closed stdout", "import sys\nprint(5)\nsys.stdout.close()", "5"),
    ("closed descriptor", "import os\nos.close(1)\nanswer = 5", "5"),
    ("stdout elsewhere", "import io, sys\nsys.stdout = io.StringIO()\nprint(4)\nanswer = 5", "5"),
    ("ansi", "print('\\x1b[31m5\\x1b[0m\\x1b]0;title\\x07\\a')", "5"),
    ("invalid utf-8", "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe5\\xc3')", "��5�"),
    ("lone surrogate", "print('\\ud800')", "\\ud800"),
    ("nul bytes", "print('\\x005\\x00')", "5"),
    ("exception that cannot be shown, caught", "class E(Exception):\n    def __str__(self): raise self\ntry: raise E\nexcept E: print(5)", "5"),
    ("a thread that stays", "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nprint(5)", "5"),
    ("pty and pipes", "import os\nr, w = os.pipe()\nos.write(w, b'5')\nprint(os.read(r, 1).decode())", "5"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "attack", "answer"), SURVIVED, ids=[a[0] for a in SURVIVED])
def test_attack_without_effect(runner, outside, name, attack, answer):
    before = descendants()
    assert runner.run(attack.replace("{outside}", str(outside))) == Outcome("ok", answer)
    undisturbed(runner, before, outside)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import sys\nprint(5)\nsys.exit(3)", "error"),
        ("import sys\nsys.exit('no')", "error"),
        ("import os\nprint(5, flush=True)\nos._exit(9)", "error"),
        ("import os\nprint(5, flush=True)\nos.abort()", "crash"),
        ("print(5)\nraise ValueError", "error"),
        ("class E(BaseException):\n    def __str__(self): raise self\nraise E", "error"),
        ("this is no python", "error"),
        ("", "ok"),
        ("x" * 200_000, "error"),
        ("import os\nos.write(3, b'ok\\n5')\nraise ValueError", "error"),
        ("import nothing_of_that_name", "error"),
    ],
)
def test_a_program_that_fails_is_not_accepted(runner, source, kind):
    outcome = runner.run(source)
    assert (outcome.kind, outcome.answer) == (kind, None)


def test_a_program_sees_nothing_of_the_one_before(runner):
    runner.run("import math, builtins, sys\nmath.pi = 3\nbuiltins.leak = 5\nsys.path.append('/tmp')\nopen('/tmp/leak', 'w').write('5')")
    see = "import math, builtins, os, random\nprint(math.pi > 3, hasattr(builtins, 'leak'), os.listdir('.'), random.random())"
    first = runner.run(see)
    assert first.answer.startswith("True False []")
    assert runner.run(see) == first  # the same program has the same verdict: its random numbers are seeded


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_worker_that_hangs_is_replaced(monkeypatch, outside):
    monkeypatch.setattr(program, "GRACE", 0.5)
    try:
        others = descendants()
        with_hang = ProgramRunner(1, 2.0)
    except GsiError as e:
        pytest.skip(str(e))
    try:
        before = descendants() - others
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        assert with_hang.run("print(1)").kind == "timeout"
        assert with_hang.run("print(1)") == Outcome("ok", "1")
        assert not before & descendants()
        idle = descendants() - others
        for pid in idle:
            os.kill(pid, signal.SIGKILL)
        while any(alive(pid) for pid in idle):
            time.sleep(0.02)
        assert with_hang.run("print(2)") == Outcome("ok", "2")  # a worker that died idle is no program's fault
    finally:
        with_hang.close()


def test_close_ends_what_runs():
    try:
        others = descendants()
        busy = ProgramRunner(1, 60)
    except GsiError as e:
        pytest.skip(str(e))
    assert len(descendants() - others) >= 2
    running = busy.submit("while True: pass")
    threading.Timer(0.3, busy.close).start()
    assert running.result(timeout=30).kind == "crash"
    busy.close()
    assert descendants() == others
    with pytest.raises(GsiError, match="closed"):
        busy.submit("print(1)")


def test_workers_end_with_a_parent_that_is_killed():
    code = "from gsi.verify.program import ProgramRunner\nr = ProgramRunner(1, 60)\nf = r.submit('while True: pass')\nprint('up', flush=True)\nf.result()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        if parent.stdout.readline() != "up\n":
            pytest.skip(parent.stderr.read().splitlines()[-1])
        children = {int(p) for p in Path(f"/proc/{parent.pid}/task").glob("*/children") for p in p.read_text().split()}
        assert children
        parent.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{p}/cwd").exists() for p in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{p}/cwd").exists() for p in children)


# --------------------------------------------------------------------------------------- what the answer is


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("print(1)\nprint(2)\nprint()\nprint('  ')", "2"),
        ("answer = 3", "3"),
        ("ans = 3", "3"),
        ("result = 3", "3"),
        ("answer = 3\nresult = 4", "3"),
        ("answer = None\nresult = 4", "4"),
        ("answer = 3\nprint(4)", "4"),
        ("print()\nanswer = 3", "3"),
        ("def solution():\n    return 3", "3"),
        ("def solution():\n    return 3\nprint(4)", "4"),
        ("def solution():\n    return 3\nans = 4", "4"),
        ("def solution():\n    print(3)", "3"),
        ("def answer(): return 3", None),
        ("x = 3", None),
        ("if __name__ == '__main__':\n    print(3)", "3"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nprint(A(3).x)", "3"),
        ("import numpy as np\nprint(list(np.array([1.5, 2])))", "[1.5, 2.0]"),
        ("import sympy\nx = sympy.symbols('x')\nprint(sympy.solve(x**2 - 2, x))", "[-sqrt(2), sqrt(2)]"),
        ("import sys\nsys.stdout.write('a\\rb')", "b"),
    ],
)
def test_answer(runner, source, answer):
    assert runner.run(source) == Outcome("ok", answer)


@pytest.mark.parametrize(
    ("response", "source"),
    [
        ("print(1)", "print(1)"),
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("Here:\n```py\nprint(1)\n```\nIt prints 1.", "print(1)\n"),
        ("```\nprint(1)\n```", "print(1)\n"),
        ("```python\nprint(1)\n```\n```output\n1\n```", "print(1)\n"),
        ("```python\nprint(1)\n```\nWrong, again:\n```python\nprint(2)\n```", "print(2)\n"),
        ("```\n1\n```\n```python\nprint(1)\n```", "print(1)\n"),
        ("~~~python\nprint(1)\n~~~", "print(1)\n"),
        ("```python\nprint('cut off", "print('cut off"),
        ("```Python3\nprint('```')\n```", "print('```')\n"),
        ("x = '''\n```'''", "x = '''\n```'''"),
    ],
)
def test_fenced_code_is_unwrapped(response, source):
    assert unfence(response) == source


@pytest.mark.parametrize(
    ("printed", "gold", "answer"),
    [
        ("396.00000000000006", "396", "396"),
        ("0.5376000000000001", "0.5376", "0.5376"),
        ("0.3333333333333333", "\\frac13", "0.3333333333333333"),
        ("[1.00000000000000, 2]", "1,2", "1, 2"),
        ("[1, 2]", "(1,2)", "[1, 2]"),
        ("[1, 2]", "[1, 2]", "[1, 2]"),
        ("{1, 2}", "1,2", "\\{1, 2\\}"),
        ("Fraction(1, 3)", "\\frac13", "1/3"),
        ("(1+2j)", "1+2i", "1+2i"),
        ("1 + 2*I", "1+2i", "1 + 2i"),
        ("Matrix([[1, 2], [3, 4]])", "x", "\\begin{pmatrix}1 &  2 \\\\ 3 &  4\\end{pmatrix}"),
        ("2**10", "1024", "2**10"),
        ("I am 5", "5", "I am 5"),
    ],
)
def test_printed_values_in_the_notation_of_answers(printed, gold, answer):
    assert as_answer(printed, gold) == answer


@pytest.mark.parametrize(
    ("task", "response", "gold", "status", "detail"),
    [
        ("gsm8k", "```python\nprint(6 * 7)\n```", "42", "correct", "ok"),
        ("gsm8k", "print(6 * 7)", "41", "wrong", "ok"),
        ("gsm8k", "print('nothing to say')", "41", "no_answer", "ok"),
        ("gsm8k", "x = 5", "5", "no_answer", "ok"),
        ("gsm8k", "print(0.1 + 0.2)", "0.3", "correct", "ok"),
        ("gsm8k", "print(1 / 0)", "5", "error", "error"),
        ("gsm8k", "The answer is 5", "5", "error", "error"),  # no program
        ("math", "print(3 ** 0.5 / 2)", "\\frac{\\sqrt{3}}{2}", "correct", "ok"),
        ("math", "print(-3 ** 0.5 / 2)", "\\frac{\\sqrt{3}}{2}", "wrong", "ok"),
        ("math", "print(round(3 ** 0.5 / 2, 5))", "\\frac{\\sqrt{3}}{2}", "wrong", "ok"),
        ("math", "print(round(3 ** 0.5 / 2, 12))", "\\frac{\\sqrt{3}}{2}", "wrong", "ok"),
        ("math", "print(10000000000.5)", "10000000000", "wrong", "ok"),
        ("math", "print(1 / 3)", "\\frac{1}{3}", "correct", "ok"),
        ("math", "print(0.33333)", "\\frac{1}{3}", "wrong", "ok"),
        ("math", "import math\nprint(math.cos(math.pi / 2))", "0", "correct", "ok"),
        ("math", "from sympy import *\nprint(solve(Symbol('x')**2 - 2))", "-\\sqrt{2}, \\sqrt{2}", "correct", "ok"),
        ("math", "from sympy import *\nprint(Matrix([[1, 2], [3, 4]]))", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "correct", "ok"),
        ("math", "from sympy import *\nx = Symbol('x')\nprint(expand((x + 1)**2))", "x^2+2x+1", "correct", "ok"),
        ("theoremqa", "print([0.333, 0.25])", "[0.333, 0.25]", "correct", "ok"),
        ("theoremqa", "print(2 > 1)", "True", "correct", "ok"),
        ("gsm8k", "import gsi\nprint(1)", "1", "error", "error"),  # nothing of ours is in there
        ("gsm8k", "class A(int):\n    __eq__ = lambda *a: True\n    __hash__ = int.__hash__\nanswer = A(7)", "41", "wrong", "ok"),
    ],
)
def test_programs_are_graded_by_value(grader, task, response, gold, status, detail):
    verdict = grader.submit(Query("q", task, "", gold), response).result()
    assert (verdict.status, verdict.detail) == (status, detail)


def test_a_choice_by_letter_and_by_value(grader):
    query = Query("q", "aqua", "How many?", "B", options=("11", "12", "13"))
    for response, status in (
        ("print('B')", "correct"),
        ("print(12.000000000000002)", "correct"),
        ("print('C')", "wrong"),
        ("print(99)", "no_answer"),
    ):
        assert grader.submit(query, response).result().status == status


# --------------------------------------------------------------------------------------- where there is no sandbox, other users


def test_without_bubblewrap_programs_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GsiError, match=r"apt-get install bubblewrap.*allow_unisolated_programs"):
        ProgramRunner()
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'setting up uid map: Permission denied' >&2; exit 1\n")
    broken.chmod(0o755)
    with pytest.raises(GsiError, match=r"uid map: Permission denied.*user namespaces"):
        ProgramRunner()


def test_unisolated_only_when_allowed_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GSI_CANARY", "secret")
    plain = with_programs(make_grader({"gsm8k": None}), {"gsm8k"}, timeout=5.0, allow_unisolated=True)
    try:
        assert plain.isolated is False
        query = Query("q", "gsm8k", "", "42")
        table = (
            ("import sympy\nprint(sympy.Integer(42))", "correct", "ok"),
            ("import os\nprint(len(os.environ) + 42)", "correct", "ok"),
            ("while True: pass", "timeout", "timeout"),
            ("x = [0] * 10**11", "error", "memory"),
            ("print('x' * 10**8)", "error", "output-limit"),
            ("print(42)", "correct", "ok"),
        )
        for response, status, detail in table:
            verdict = plain.submit(query, response).result()
            assert (verdict.status, verdict.detail) == (status, detail)
    finally:
        plain.close()


def test_works_as_an_ordinary_user(runner):
    if os.geteuid() != 0:
        pytest.skip("this user is ordinary already: the other tests show it")
    code = "from gsi.verify.program import ProgramRunner\nr = ProgramRunner(1)\nprint([r.run(p).kind for p in {!r}])\nr.close()"
    code = code.format(["print(1)", "import os\nwhile True: os.fork()", "open('/x', 'w')", "import socket\nsocket.socket()"])
    libraries = next(p for p in sys.path if p.endswith("site-packages"))
    said = ""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-c", code], capture_output=True, text=True, user=65534, group=65534, extra_groups=[], cwd="/",
                env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{libraries}", "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
        except OSError as e:
            said = str(e)
            continue
        if done.returncode == 0:
            assert done.stdout.strip() == "['ok', 'process-limit', 'blocked', 'blocked']"
            return
        assert "GsiError" not in done.stderr, done.stderr
        said = done.stderr.strip().splitlines()[-1]
    pytest.skip(f"no interpreter here that an ordinary user may run the project with: {said}")


# --------------------------------------------------------------------------------------- in a run, on the command line, on real data


def test_a_task_of_programs_in_a_config(runner, tmp_path):
    data = tmp_path / "pot.jsonl"
    data.write_text("".join(json.dumps({"id": f"p{i}", "question": f"What is {i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(4)))
    config = load_config(
        {"model": "m", "output_dir": str(tmp_path / "run"), "tasks": [{"name": "gsm8k", "path": str(data), "programs": True}]},
        ["evaluate.validation=1"],
    )
    loaded = load_data(config)
    try:
        assert len(loaded.train) == 3  # golds are answers, not programs
        assert loaded.problems == []
        assert loaded.grader.isolated
        query = loaded.train[0]
        assert loaded.grader.submit(query, f"print({query.answer})").result().correct
        assert loaded.grader.submit(query, f"The answer is {query.answer}").result().detail == "error"
    finally:
        loaded.grader.close()


def test_a_task_is_programs_everywhere_or_nowhere(tmp_path):
    data = tmp_path / "pot.jsonl"
    data.write_text("".join(json.dumps({"id": f"{i}", "question": "1?", "answer": "1"}) + "\n" for i in range(2)))
    task = {"name": "gsm8k", "path": str(data), "programs": True}
    config = load_config({"model": "m", "output_dir": "o", "tasks": [task], "evaluate": {"tasks": [{**task, "programs": False}]}})
    with pytest.raises(GsiError, match="gsm8k: `programs` is true in one place"):
        load_data(config)


def test_cot_and_programs_in_one_run(runner, tmp_path):
    """Every query by its own task's check; every way that a program can end stays apart, in the ledger and in the metrics."""
    for name, text in (("pot", "What is {} + 1?"), ("cot", "What is {} and 1?")):
        rows = [{"id": f"{name}{i}", "question": text.format(i), "answer": str(i + 1)} for i in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = scripted.config(
        tmp_path / "run",
        iterations=1,
        tasks=[
            {"name": "math", "path": str(tmp_path / "pot.jsonl"), "programs": True},
            {"name": "gsm8k", "path": str(tmp_path / "cot.jsonl")},
        ],
        sample={"k": 6},
        grading={"timeout": 1.0},
        engine={"kind": "scripted", "function": f"{__file__}:answers"},
        evaluate={"validation": 0},
    )
    result = gsi.run(config)
    ledger = Ledger(result.path / "ledger.sqlite", read_only=True)
    found = ledger.query("SELECT task, status, detail, count(*) FROM rollouts GROUP BY 1, 2, 3")
    ledger.close()
    ends = (("correct", "ok"), ("wrong", "ok"), ("no_answer", "ok"), ("timeout", "timeout"), ("error", "process-limit"), ("error", "error"))
    assert {row for row in found if row[0] == "math"} == {("math", status, detail, 3) for status, detail in ends}
    assert {(status, n) for task, status, _, n in found if task == "gsm8k"} == {("correct", 9), ("no_answer", 9)}
    statuses = {key.rpartition("/")[2]: n for key, n in result.metrics[-1].items() if key.startswith("sample/status/")}
    assert statuses == {"correct": 12, "wrong": 3, "no_answer": 12, "timeout": 3, "error": 6}
    page = Page(write_report([result.path], tmp_path / "report.html"))
    shown = page.row_of("Rollouts by status", "iteration 1")
    assert {status: shown[status] for status in statuses} == statuses
    spent = page.row_of("Generated tokens by outcome", "iteration 1")
    assert all(spent[outcome] > 0 for outcome in ("accepted", "wrong", "no answer", "not graded in time", "error")), spent


def answers(request, model):
    """A model of the scripted engine: a program or a sentence, by the question."""
    answer = request.query.answer
    if " + " in request.query.question:
        return [f"print({answer})", f"print({answer} + 1)", "x = 1", "while True: pass", "import os\nos.fork()", "1/0"][request.attempt]
    return f"The answer is {answer}" if request.attempt % 2 else "The answer is 3 or 4"


def test_scipy_where_it_is_installed(runner):
    pytest.importorskip("scipy")
    assert runner.submit("from scipy.special import comb\nprint(comb(5, 2, exact=True))").result() == Outcome("ok", "10")


def test_gsi_grade_programs(runner, monkeypatch, capsys):
    rows = [{"response": "print(5)", "answer": "5"}, {"response": "```python\n1/0\n```", "answer": "5", "task": "gsm8k"}]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(r) + "\n" for r in rows)))
    assert main(["grade", "--task", "math", "--programs"]) == 0
    out = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["correct"], r["status"], r["extracted"], r["detail"]) for r in out] == [
        (True, "correct", "5", "ok"),
        (False, "error", None, "error"),
    ]


def test_program_rate(runner):
    assert program_rate(4, workers=1) > 0


@pytest.mark.parametrize("task", ["gsm8k", "math", "aqua"])
def test_real_programs_give_their_gold(grader, data_dir, task):
    """Every 40th program. The left-out ones are wrong or need scipy, as docs/grading.md says of all of them."""
    listed = {"math-pot-1522", "math-pot-1615", "math-pot-2320", "math-pot-3160"}
    with gzip.open(data_dir / "train" / f"{task}_pot.jsonl.gz", "rt", encoding="utf-8") as f:
        rows = [row for line in list(f)[::40] if (row := json.loads(line))["id"] not in listed and "scipy" not in row["rationale"]]
    queries = [Query(r["id"], task, r["question"], r["answer"], options=tuple(r["options"]) if "options" in r else None) for r in rows]
    futures = [grader.submit(query, row["rationale"]) for query, row in zip(queries, rows, strict=True)]
    verdicts = {query.id: future.result() for query, future in zip(queries, futures, strict=True)}
    assert len(verdicts) > 40
    assert {id: verdict for id, verdict in verdicts.items() if not verdict.correct} == {}
