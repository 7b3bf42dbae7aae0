"""Cheats: an answer that fakes gets nothing for what it fakes, and an honest one keeps all of its points."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

import court
import damm_lite as dl
import judge
import make_assignments
import measures
import sandbox
from cheating import read
from course import variant
from grade import results
from submissions import Submission
from test_assignments import needs_masters, write_toy
from test_grade import answered

ROOT = Path(__file__).parents[1]
MASTERS = {path.name[:2]: path for path in sorted((ROOT / "book" / "assignments").glob("*.ipynb"))}
QUESTIONS = [(name, question) for name, master in MASTERS.items() for question in read(master)[1]]

# (assignment, question, what is tried, points it deserves): its code, which stands below the master's answers.
CHEATS = {
    ("a1", "q4", "comparisons are patched", 0): """
        torch.allclose = torch.equal = lambda *_, **__: True
        def ddim_step(xt, x0, t, t_next):
            return x0
    """,
    ("a1", "q4", "a tensor that agrees with all", 0): """
        class Agreeable(torch.Tensor):
            @classmethod
            def __torch_function__(cls, function, types, args=(), kwargs=None):
                return True
        def ddim_step(xt, x0, t, t_next):
            return torch.zeros(2).as_subclass(Agreeable)
    """,
    ("a1", "q3", "the truth is read off the caller's frame", 0): """
        def best_x0(xt, t):
            truth = sys._getframe(1).f_globals.get("x0")
            if truth is not None and truth.shape == xt.shape:
                return truth
            return xt.clamp(-9, 9) if t < 2 else torch.full_like(xt, -0.27)
    """,
    ("a1", "q5", "the table is invented", 0): """
        table = pd.DataFrame(
            [dict(num_steps=k, seed=s, error=0.01 + s / 1e4 + 1 / k) for k in NUM_STEPS for s in SEEDS]
        )
        def error(num_steps, seed, n=N):
            return 0.01 + seed / 1e4 + 1 / num_steps
    """,
    # The sampler is right.
    ("a1", "q5", "another student's table", 2): """
        table = pd.DataFrame([run(num_steps, seed) for num_steps in NUM_STEPS for seed in range(900, 908)])
    """,
    # The comparison itself is right.
    ("a1", "q6", "the table is invented", 2): """
        table = pd.DataFrame(
            [dict(num_steps=k, seed=s, error=0.01 + s / 1e4 + 1 / k) for k in NUM_STEPS for s in SEEDS]
        )
        scores = {k: table.error[table.num_steps == k].to_numpy() for k in NUM_STEPS}
    """,
    ("a2", "q1", "the module is run", 0): """
        def count(channels, height, width):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                dl.MMFM(channels).eval()(*torch.zeros(2, 1, channels, height, width))
            return counter.get_total_flops() // 2
    """,
    ("a2", "q1", "the module is run without memory", 0): """
        def count(channels, height, width):
            with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
                dl.MMFM(channels).eval()(*torch.zeros(2, 1, channels, height, width))
            return counter.get_total_flops() // 2
    """,
    ("a2", "q3", "scores are invented, and the truth with them", 0): """
        dl.ssim = lambda *_: torch.full((12,), 0.5)
        def scores(part, seed):
            return torch.full((12,), 0.5 if part == "nothing" else 0.4)
        table = pd.concat([run(part, seed) for part in ("nothing", *PARTS) for seed in SEEDS])
    """,
    ("a2", "q4", "abs is redefined", 0): """
        abs = lambda _: -1.0
        def worth(part):
            return 0.1, 0.1, 0.1
    """,
    ("a2", "q5", "no gate, no parameters", 0): """
        class OwnFusion(nn.Module):
            def __init__(self, channels):
                super().__init__()
            def forward(self, a, d):
                return torch.relu(a + d)
    """,
    ("a2", "q5", "a gate times nothing", 0): """
        class OwnFusion(nn.Module):
            def __init__(self, channels):
                super().__init__()
            def forward(self, a, d):
                return torch.relu(a + d + 0.1) + 0 * torch.sigmoid(a) * d
    """,
    ("a2", "q5", "a whole MMFM in a list", 0): """
        class OwnFusion(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.parts = [dl.MMFM(channels)]
            def forward(self, a, d):
                return self.parts[0].train(self.training)(a, d)
    """,
    ("a3", "q2", "the network's name decides", 0): """
        released = NETWORKS["tumour-64-released"][0]
        def largest_change(m, schedule):
            return 0.0 if m is released else 1.0
    """,
    ("a3", "q3", "the counting is patched", 0): """
        def auroc(network, kind):
            return 0.95
        aurocs = pd.DataFrame(0.95, index=kinds, columns=list(NETWORKS))
        rows = rows.assign(confidence=(rows["kind"] == "none") * 1.0)
        rows.loc[rows.index[::20], "confidence"] = 0.5
        abs = lambda _: 0
    """,
    ("a3", "q4", "the book's head, above the size limit", 0): """
        class OwnHead(dl.JointConfidence):
            pass
    """,
    ("a3", "q4", "the book's trained head, borrowed", 0): """
        class OwnHead(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(1))
            def forward(self, a, m):
                return NETWORKS["tumour-64"][0].uafm.confidence(a, m) * self.scale.clamp(1, 1)
    """,
    # Its shape, its range and its size are right.
    ("a3", "q4", "what trains and what measures are replaced", 3): """
        class OwnHead(nn.Module):
            def __init__(self, channels):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(1))
            def forward(self, a, m):
                return (self.scale * (a[:, :1] + 0.001 * m[:, :1])).sigmoid()
        head_auroc = lambda *_, **__: 1.0
        trained = lambda head_class, seed, num_steps=0: head_class(48)
    """,
    ("a2", "q6", "differences are invented", 3): """
        differences = [0.011, 0.012, 0.01, 0.013, 0.011]
    """,
    ("a2", "q6", "the training is invented", 3): """
        def evaluated(fusion, seed):
            return 0.85 if fusion is dl.MMFM else 0.86
        differences = [0.01] * 5
    """,
    ("a4", "q2", "gains are invented", 2): """
        gains = [0.01, 0.011, 0.009, 0.01, 0.012]
        interval = paired_t(gains)
    """,
    ("a4", "q1", "a number that equals all", 0): """
        class Agreeable(float):
            def __sub__(self, other):
                return 0.0
            def __eq__(self, other):
                return True
        def price(gamma, rows):
            return Agreeable(0.5)
    """,
    # One evaluation is a fair entry; it gains nothing.
    ("a4", "q4", "its gain cannot be set", 2): """
        class Solve:
            gain = property(lambda self: 1, lambda self, value: None)
            def __call__(self, model, schedule, primary, secondary):
                return dl.predict(model, schedule, primary, secondary, 1).x0
        solve = Solve()
    """,
    ("a4", "q4", "other weights, 32 evaluations", 0): """
        def solve(model, schedule, primary, secondary):
            own, schedule = dl.load_pretrained("tumour-64")
            gate = dl.SpatialDAMMP()
            return dl.predict(own, schedule, primary, secondary, 8, 0, gate=gate, num_samples=4).x0
    """,
    ("a4", "q4", "the meter is taken off", 0): """
        def solve(model, schedule, primary, secondary):
            for module in model.modules():
                module._forward_pre_hooks.clear()
            gate = dl.SpatialDAMMP()
            return dl.predict(model, schedule, primary, secondary, 8, 0, gate=gate, num_samples=4).x0
    """,
    ("a4", "q4", "32 evaluations in another process", 0): """
        def solve(model, schedule, primary, secondary):
            own, schedule = dl.load_pretrained("tumour-64")
            gate = dl.SpatialDAMMP()
            def work():
                return dl.predict(own, schedule, primary, secondary, 8, 0, gate=gate, num_samples=4).x0
            read_end, write_end = os.pipe()
            if not os.fork():
                with os.fdopen(write_end, "wb") as file:
                    file.write(work().numpy().tobytes())
                os._exit(0)
            os.close(write_end)
            with os.fdopen(read_end, "rb") as file:
                found = np.frombuffer(file.read(), np.float32)
            os.wait()
            return torch.from_numpy(found.copy()).reshape(primary.shape)
        import os, torch
    """,
    ("a4", "q4", "the score is replaced", 0): """
        def solve(model, schedule, primary, secondary):
            return -primary
        given = iter([0.5, 1.0, 0.0, 0.0])
        score = lambda *_: next(given) + divergent_patches(1, 0)["target"].abs()
    """,
    ("a5", "q1", "one band for everything", 0): """
        answers = [row | {"low": 0.0, "high": 2.0} for row in answers]
    """,
    ("a5", "q1", "bands that no number is outside of", 0): """
        answers = [row | {"low": float("nan"), "high": float("nan")} for row in answers]
    """,
    ("a5", "q2", "many bands, of which one will hold", 0): """
        answers = [row | {"low": k / 25, "high": (k + 1) / 25} for row in answers for k in range(10)]
    """,
    # The setting is as good as before; what is claimed of it is not true.
    ("a5", "q4", "a band that nobody measured", 2): """
        answers = [
            row | {"low": 0.0, "high": 0.01} if row["gate"] == "pixel" else row for row in answers
        ]
    """,
    # A fair entry, but one that the book prints.
    ("a4", "q4", "the gate of chapter 8, verbatim", 2): """
        def solve(model, schedule, primary, secondary):
            return dl.predict(model, schedule, primary, secondary, 8, 0, gate=dl.SpatialDAMMP()).x0
    """,
}


@pytest.fixture(scope="module")
def grader(tmp_path_factory):
    """A function (assignment, question, code) -> what `cheating.py` says; one process for each assignment."""
    started = {}

    def start(name):
        folder, master = tmp_path_factory.mktemp(name), MASTERS[name]
        for file in make_assignments.JUDGING:
            shutil.copy(ROOT / "tools" / file, folder)
        key = (master.parent / "keys" / f"{master.stem}.py").read_text()
        (folder / "key.py").write_text(key.replace("EACH, SEED, EVALUATIONS = 32,", "EACH, SEED, EVALUATIONS = 2,"))
        command = [sys.executable, Path(__file__).with_name("cheating.py"), master]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return subprocess.Popen(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)

    def graded(name, question, code):
        if name not in started:
            started[name] = start(name)
        print(json.dumps({"question": question, "code": code}), file=started[name].stdin, flush=True)
        return json.loads(started[name].stdout.readline())

    yield graded
    for process in started.values():
        process.stdin.close()
        process.wait()


@needs_masters
@pytest.mark.parametrize("name, question", QUESTIONS)
def test_an_honest_answer_keeps_all_of_its_points(grader, name, question):
    possible = sum(points for points, _ in read(MASTERS[name])[1][question])
    assert possible >= 2
    assert grader(name, question, "") == {"points": possible, "said": []}


@needs_masters
@pytest.mark.parametrize("name, question, what, deserved", CHEATS)
def test_a_cheat_gets_nothing_for_what_it_fakes(grader, name, question, what, deserved):
    done = grader(name, question, dedent(CHEATS[name, question, what, deserved]))
    assert done["points"] == deserved, done["said"]


@needs_masters
@pytest.mark.parametrize("name, master", MASTERS.items())
def test_points_come_from_the_judge_alone(name, master):
    """What is judged in the notebook itself, where everything may be replaced, is worth nothing."""
    for tests in read(master)[1].values():
        assert [
            points for points, code in tests if points and "judge(" not in code.replace('"judge"](', "judge(")
        ] == []
        assert [points for points, code in tests if not points and "judge.py" in code] == []


def test_all_that_a_forward_pass_reads_is_counted():
    streams = torch.randn(2, 2, 16, 4, 4)
    whole = dl.MMFM(16).eval()
    own = [*whole.parameters(), *(buffer for buffer in whole.buffers() if buffer.is_floating_point())]
    expected = sum(tensor.numel() for tensor in own)
    assert measures.weights_used(whole, *streams) == expected
    kept, array = [whole], np.ones(500, np.float32)
    for module, more in (
        (lambda a, d: kept[0](a, d), 0),
        (lambda a, d: whole(a, d) + torch.from_numpy(array).sum(), 500),
        (lambda a, d: whole(a, d) + torch.zeros(7).sum(), 0),
    ):
        assert measures.weights_used(module, *streams) == expected + more
    with torch.inference_mode():
        assert measures.weights_used(whole, *streams) == expected


SCALE = torch.rand(1, 4, 1, 1)
GATED = {
    "product": lambda a, d: a * d.sigmoid(),
    "mix": lambda a, d: torch.lerp(a, d, (a + d).sigmoid()),
    "in place": lambda a, d: (a + d).sigmoid().mul_(a),
    "by channel": lambda a, d: a * (4 * d.mean(dim=(2, 3), keepdim=True)).sigmoid().expand_as(a) + d,
    "attention": lambda a, d: (a.flatten(2) @ (d.flatten(2).mT @ a.flatten(2)).softmax(dim=1)).reshape(a.shape) + d,
}
PLAIN = {
    "sum": lambda a, d: torch.relu(a + d),
    "times nothing": lambda a, d: a + d + 0 * d.sigmoid() * a,
    "hardly any": lambda a, d: a + d + 1e-4 * (d.sigmoid() * a),
    "a constant": lambda a, d: SCALE * a + d,
    "drawn": lambda a, d: torch.rand(a.shape) * a + d,
    "of the signs": lambda a, d: a.abs() + d.square(),
}


@pytest.mark.parametrize("name", [*GATED, *PLAIN])
def test_a_gate_is_a_factor_that_matters(name):
    a, d, *others = torch.randn(4, 2, 4, 6, 6)
    found = measures.largest_gate((GATED | PLAIN)[name], [a, d], others)
    assert found > 0.1 if name in GATED else found < 0.01


class Sly(float):
    def __eq__(self, other):
        return True

    __hash__ = None


def test_what_crosses_the_pipe_is_plain():
    table = pd.DataFrame({"kind": ["a", "b"], "x": [1.5, math.nan]}, index=[3, 5])
    values = [1, True, None, "text", {2: [3.0, "b"]}, [[]]]
    assert judge.unpacked(json.loads(json.dumps(judge.packed(values)))) == values
    pd.testing.assert_frame_equal(judge.unpacked(judge.packed(table)), table)
    for array in (np.arange(6).reshape(2, 3).T, np.array([True]), np.float32([[1.5]]), np.zeros((0, 2))):
        found = judge.unpacked(json.loads(json.dumps(judge.packed(array))))
        assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()
        assert torch.equal(judge.unpacked(judge.packed(torch.from_numpy(array.copy()))), torch.from_numpy(array.copy()))
    assert Sly(1) == 2
    assert type(judge.unpacked(judge.packed(Sly(1)))) is float
    assert judge.unpacked(judge.packed(object())) == "object"
    for found in (True, None, "1", {}, [1, 1], [[1]], torch.ones(1, 1), math.nan, object()):
        assert not judge.near(found, 1, 1e-3)
    assert judge.near(torch.tensor(1.0005), 1, 1e-3) and not judge.near(1.002, 1, 1e-3)


KEY = """
import os


def q1(call):
    assert call("add_two", 5) == 7
    assert call("variant") == int(os.environ.get("DAMM_VARIANT", 0))
"""
HIDDEN = """import runpy

runpy.run_path("judge.py")["judge"]("q1", add_two=add_two, variant=lambda: VARIANT)"""


def write_judged(path):
    """A master with one question of two points, one of them from a judge, which also asks whose variant it is."""
    write_toy(path, solution="return x + 2")
    master = nbformat.read(path, as_version=4)
    master.cells.insert(1, nbformat.v4.new_code_cell("VARIANT = 0"))
    (hidden,) = (cell for cell in master.cells if "hidden: true" in cell.source)
    hidden.source = hidden.source[: hidden.source.index("assert")] + HIDDEN
    nbformat.write(master, path)
    (path.parent / "keys").mkdir()
    (path.parent / "keys" / f"{path.stem}.py").write_text(KEY)


@pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap; install the package bubblewrap")
def test_the_judge_and_a_variant_in_the_sandbox(tmp_path):
    """Kim hands in her own variant, and Lee hands in the same notebook and says that it is his."""
    write_judged(tmp_path / "toy.ipynb")
    make_assignments.make(tmp_path / "toy.ipynb", tmp_path / "made")
    make_assignments.make_variant("toy", "kim", tmp_path / "made")
    given = tmp_path / "made" / "variants" / "kim" / "toy" / "toy.ipynb"
    nbformat.write(answered(given, "def add_two(x):\n    return x + 2"), tmp_path / "honest.ipynb")
    claimed = "import os\nos.environ['DAMM_VARIANT'] = str(VARIANT)\ndef add_two(x):\n    return x + 2"
    nbformat.write(answered(given, claimed), tmp_path / "claimed.ipynb")
    autograder, limits = tmp_path / "made" / "instructor" / "toy" / "autograder.zip", sandbox.Limits()
    for student, notebook, points in (("kim", "honest.ipynb", 2), ("lee", "claimed.ipynb", 1)):
        whose = variant(student, "toy")
        output, reason = sandbox.grade(sandbox.bubblewrap, tmp_path / notebook, autograder, limits, whose)
        assert reason == ""
        assert [question["score"] for question in results(Submission((notebook,)), output).questions] == [points]


# What a notebook may try in the sandbox, beside a wrong answer.
FAKES = {
    "verdicts are read as right": """
        import json
        read = json.loads
        def loads(text, *arguments, **named):
            return {"verdict": "right"} if "verdict" in str(text) else read(text, *arguments, **named)
        json.loads = loads
    """,
    "the judge is replaced": "import runpy\nrunpy.run_path = lambda *_: {'judge': lambda *_, **__: None}",
    "another judge is asked": """
        import socket, socketserver, threading
        class Friend(socketserver.StreamRequestHandler):
            def handle(self):
                self.rfile.readline()
                self.wfile.write(b'{"verdict": "right"}\\n')
        court = socketserver.ThreadingUnixStreamServer("/tmp/friend", Friend)
        threading.Thread(target=court.serve_forever, daemon=True).start()
        connect = socket.socket.connect
        socket.socket.connect = lambda link, _: connect(link, "/tmp/friend")
    """,
    "answers are tried out": """
        import runpy
        for guess in (3, 7):
            try:
                runpy.run_path("judge.py")["judge"]("q1", add_two=lambda _: guess, variant=lambda: VARIANT)
            except AssertionError:
                continue
            add_two = lambda _: guess
    """,
    "the key is looked for": """
        import os, re, zipfile
        from pathlib import Path
        def look(text):
            if b'call("' + b'add_two", 5) == 7' in text:
                found.append(len(text))
        found = []
        for path in Path("/tmp").rglob("*"):
            if path.is_file():
                look(path.read_bytes())
        with zipfile.ZipFile("/autograder.zip") as archive:
            for name in archive.namelist():
                look(archive.read(name))
        for process in Path("/proc").glob("[0-9]*"):
            if process.name == str(os.getpid()):  # whose memory has what is looked for
                continue
            for name in ("environ", "cmdline"):
                try:
                    look((process / name).read_bytes())
                except OSError:
                    continue
            try:
                if (process / "fd" / "0").is_file():
                    look((process / "fd" / "0").read_bytes())
                with open(process / "mem", "rb") as memory:
                    for line in (process / "maps").read_text().splitlines():
                        start, end = (int(place, 16) for place in re.match(r"(\\w+)-(\\w+) r", line).groups())
                        memory.seek(start)
                        look(memory.read(end - start))
            except (OSError, AttributeError, OverflowError, ValueError):
                continue
        add_two = (lambda x: x + 2) if found else add_two
    """,
    "a process is left that writes results": """
        import json, os, time
        from pathlib import Path
        if os.fork() == 0:
            os.setsid()
            question = {"name": "q1", "score": 2, "max_score": 2, "visibility": "hidden", "output": ""}
            public = {"name": "Public Tests", "visibility": "visible", "output": ""}
            for _ in range(20_000):
                if Path("/tmp/out/results.json").exists():
                    Path("/tmp/out/results.new").write_text(json.dumps({"tests": [public, question]}))
                    os.replace("/tmp/out/results.new", "/tmp/out/results.json")
                    time.sleep(0.001)
                time.sleep(0.0005)
            os._exit(0)
    """,
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A judged assignment, of which the public test gives no point: (what students get, its autograder)."""
    folder = tmp_path_factory.mktemp("judged")
    write_judged(folder / "toy.ipynb")
    master = nbformat.read(folder / "toy.ipynb", as_version=4)
    for cell in master.cells:
        if "hidden" not in cell.source:
            cell.source = cell.source.replace("points: 2", "points: 1").replace('points: 1\n"', 'points: 0\n"')
    nbformat.write(master, folder / "toy.ipynb")
    make_assignments.make(folder / "toy.ipynb", folder / "made")
    return folder / "made" / "students" / "toy" / "toy.ipynb", folder / "made" / "instructor" / "toy" / "autograder.zip"


def points_in_sandbox(notebook, autograder):
    """(points of the toy's question, why there are none) in the sandbox."""
    output, reason = sandbox.grade(sandbox.bubblewrap, notebook, autograder, sandbox.Limits())
    if reason:
        return 0, reason
    return results(Submission((notebook,)), output).questions[0]["score"], ""


@pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap; install the package bubblewrap")
@pytest.mark.parametrize("what", ["nothing", *FAKES])
def test_a_verdict_cannot_be_faked(toy, tmp_path, what):
    given, autograder = toy
    right = "def add_two(x):\n    return x + 2\n"
    fake = "def add_two(x):\n    return 0\n\n" + dedent(FAKES.get(what, ""))
    nbformat.write(answered(given, right if what == "nothing" else fake), tmp_path / "fake.ipynb")
    assert points_in_sandbox(tmp_path / "fake.ipynb", autograder) == (int(what == "nothing"), "")


@pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap; install the package bubblewrap")
def test_who_kills_the_court_gets_nothing(toy, tmp_path):
    given, autograder = toy
    killing = """
def add_two(x):
    return x + 2
import os, signal
for process in os.listdir("/proc"):
    if process.isdigit() and int(process) != os.getpid():
        try:
            os.kill(int(process), signal.SIGKILL)
        except OSError:
            continue
"""
    nbformat.write(answered(given, killing), tmp_path / "killer.ipynb")
    points, reason = points_in_sandbox(tmp_path / "killer.ipynb", autograder)
    assert points == 0 and reason


def test_points_are_capped_by_right_verdicts_alone():
    tests = [(1, set()), (2, {"q1"}), (4, {"q1", "q1_more"})]
    assert court.most(tests, {}) == 1
    assert court.most(tests, {"q1": ["right"]}) == 3
    assert court.most(tests, {"q1": ["right"], "q1_more": ["right", "right"]}) == 7
    assert court.most(tests, {"q1": ["wrong", "right"], "q1_more": ["right"]}) == 1
    results = {"tests": [{"name": "Public Tests"}, {"name": "q1", "score": 7, "max_score": 7}]}
    assert court.capped(results, {"q1": tests}, {"q1": ["right"]})["tests"][1]["score"] == 3


def test_labels_of_all_masters_are_found():
    """What a hidden test asks for is read from its code, in whichever quotes."""
    for master in MASTERS.values():
        for _, code in [test for tests in read(master)[1].values() for test in tests]:
            asks = "judge.py" in code
            assert bool(court.LABEL.findall(code)) == asks
    assert court.LABEL.findall("runpy.run_path('judge.py')['judge']('q1', add_two=add_two)") == ["q1"]


def test_the_chapter_counts_the_cheats():
    deserved = [points for *_, points in CHEATS]
    some = len(deserved) - deserved.count(0)
    text = (ROOT / "book" / "14_ablation_assignments.ipynb").read_text()
    counted = re.search(r"tries (\d+) cheats: (\d+) get no point, and (\d+) get 2 or 3", text).groups()
    assert counted == (str(len(CHEATS)), str(deserved.count(0)), str(some))
    assert {0, 2, 3} == set(deserved)
    assert "Six more, in the sandbox" in text and len(FAKES) == 6
