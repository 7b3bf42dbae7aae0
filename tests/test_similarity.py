"""Similarity: copies in other words come first, honest work does not, and what could not be compared is named."""

import json
import os
import re
import sys

import nbformat
import pandas as pd
import pytest

import similarity
from test_submissions import DAMAGED, OTTER, pack

GIVEN = [
    "import math\nfrom collections import Counter\n\nTEXT = 'the cat and the dog'\nNUMBERS = list(range(40))",
    'def most_common(text, n):\n    """The n most common words of a text, the first in the alphabet first."""\n    ...',
    'def primes(n):\n    """All primes below n."""\n    ...',
    'def root(function, low, high):\n    """Where a growing function is 0, between low and high."""\n    ...',
    'def runs(values):\n    """[(value, how often in a row), ...]"""\n    ...',
    "for limit in (10, 20, 40):\n    print(limit, primes(limit), most_common(TEXT, 2), runs('aab'))",
]
KIM = [
    """counts = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    order = sorted(counts, key=lambda word: (-counts[word], word))
    return order[:n]""",
    """sieve = [True] * n
    for k in range(2, math.isqrt(n) + 1):
        if sieve[k]:
            for multiple in range(k * k, n, k):
                sieve[multiple] = False
    return [k for k in range(2, n) if sieve[k]]""",
    """while high - low > 1e-9:
        middle = (low + high) / 2
        if function(middle) > 0:
            high = middle
        else:
            low = middle
    return (low + high) / 2""",
    """found = []
    for value in values:
        if found and found[-1][0] == value:
            found[-1] = (value, found[-1][1] + 1)
        else:
            found.append((value, 1))
    return found""",
]
ADA = [
    """words = Counter(text.split())
    return [w for w, _ in sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))][:n]""",
    """known = []
    candidate = 2
    while candidate < n:
        if all(candidate % p for p in known):
            known.append(candidate)
        candidate += 1
    return known""",
    """for _ in range(60):
        half = low + (high - low) * 0.5
        low, high = (low, half) if function(half) >= 0 else (half, high)
    return low""",
    """from itertools import groupby

    return [(key, sum(1 for _ in group)) for key, group in groupby(values)]""",
]
BEN = [
    """import re

    table = Counter(re.findall(r"[a-z]+", text.lower())).most_common()
    table.sort(key=lambda row: row[0])
    table.sort(key=lambda row: row[1], reverse=True)
    return list(dict(table[:n]))""",
    """return sorted(set(range(2, n)) - {a * b for a in range(2, n) for b in range(2, n // a + 1)})""",
    """middle, step = low, (high - low) / 2
    while step > 1e-12:
        if function(middle + step) <= 0:
            middle += step
        step /= 2
    return middle""",
    """if not len(values):
        return []
    length = next((i for i, v in enumerate(values) if v != values[0]), len(values))
    return [(values[0], length), *runs(values[length:])]""",
]
LEE = dict(counts="c", word="w", order="best", sieve="is_prime", k="number", multiple="m", middle="mid", found="out")
MAX = dict(counts="table", word="token", order="ranking", sieve="ok", k="i", multiple="j", middle="x", value="v")


def answered(bodies):
    """The cells of the notebook with these answers."""
    blanks = iter(bodies)
    return [cell.replace("...", next(blanks)) if "..." in cell else cell for cell in GIVEN]


def disguised(cells, names, comment):
    """The same with other names, a comment before each `for` and `while`, double quotes, and cells in another order."""
    first, *rest = cells
    made = []
    for cell in rest[::-1]:
        for old, new in names.items():
            cell = re.sub(rf"\b{old}\b", new, cell)
        made.append(re.sub(r"^( +)(for|while)\b", rf"\1# {comment}\n\1\2", cell.replace("'", '"'), flags=re.M))
    return [first, *made]


def written(path, cells, **metadata):
    """Write a notebook with these code cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=metadata)
    nbformat.write(made, path)


@pytest.fixture
def course(tmp_path, monkeypatch, capsys):
    """A folder with an assignment and the submissions of five, three of which are one; and a function that runs the
    command there: (the table, who was left out and why, what was printed)."""
    written(tmp_path / "made" / "students" / "a1_noising" / "a1_noising.ipynb", GIVEN)
    colab = tmp_path / "made" / "students" / "a1_noising" / "colab" / "a1_noising.ipynb"
    written(colab, ["%pip install -q otter-grader", *GIVEN])
    kim = answered(KIM)
    handed_in = dict(kim=kim, ada=answered(ADA), ben=answered(BEN))
    handed_in["lee"] = disguised(kim, LEE, "go through all of them, one by one")
    handed_in["max"] = disguised(kim, MAX, "loop")
    for student, cells in handed_in.items():
        written(tmp_path / "in" / student / "a1_noising.ipynb", cells, otter=OTTER)

    def run(*arguments):
        where = ["--out", str(tmp_path / "out"), "--assignments", str(tmp_path / "made")]
        monkeypatch.setattr(sys, "argv", ["similarity.py", str(tmp_path / "in"), *where, *arguments])
        similarity.main()
        table, left_out = (pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in ("similarity", "left_out"))
        return table, dict(zip(left_out.file, left_out.reason, strict=True)), capsys.readouterr().out

    return tmp_path, run


def names_of(rows):
    return [{row.first.split("/")[0], row.second.split("/")[0]} for row in rows.itertuples()]


def test_copies_come_first_and_honest_work_does_not(course):
    folder, run = course
    table, left_out, _ = run()
    assert len(table) == 10 and left_out == {}
    copies = names_of(table[:3])
    assert all(pair in copies for pair in ({"kim", "lee"}, {"kim", "max"}, {"lee", "max"}))
    assert table.similarity[2] > 0.75 and table.similarity[3] < 0.4
    assert (table.similarity == table[["in_first", "in_second"]].max(axis=1)).all()
    html = (folder / "out" / "a1_noising.html").read_text()
    assert "is_prime" in html and "highlight-red" in html and "/tmp" not in html and str(folder) not in html


def test_what_was_handed_out_does_not_count(course):
    """Without it ada and ben share what is alike in both; and an empty copy has nothing of its own."""
    folder, run = course
    written(folder / "in" / "eve" / "a1_noising.ipynb", GIVEN, otter=OTTER)
    table, left_out, printed = run()
    assert left_out == {"eve/a1_noising.ipynb": "0 tokens beside what was handed out, 200 are needed"}
    assert f"left out: eve/a1_noising.ipynb: {left_out['eve/a1_noising.ipynb']}" in printed and len(table) == 10
    (given,) = (table.similarity[i] for i, pair in enumerate(names_of(table)) if pair == {"ada", "ben"})
    for path in folder.glob("made/students/a1_noising/**/*.ipynb"):
        written(path, [])
    table, _, _ = run()
    (all_of_it,) = (table.similarity[i] for i, pair in enumerate(names_of(table)) if pair == {"ada", "ben"})
    assert all_of_it > given + 0.2


def test_damaged_ones_are_named_and_end_nothing(course):
    folder, run = course
    for name, (content, _) in DAMAGED.items():
        with open(os.fsencode(folder / "in") + b"/" + name, "wb") as file:
            file.write(content)
    large = answered(KIM)[:2] + [f"data = {list(range(50_000))}"]
    written(folder / "in" / "large" / "a1_noising.ipynb", large, otter=OTTER)
    for name, odd in (("half-letter", "x = '\ud83d'"), ("number", 3)):
        written(folder / "in" / name / "a1_noising.ipynb", answered(ADA), otter=OTTER)
        made = json.loads((folder / "in" / name / "a1_noising.ipynb").read_text())
        made["cells"].append(made["cells"][0] | {"source": odd, "id": "odd"})
        (folder / "in" / name / "a1_noising.ipynb").write_text(json.dumps(made))
    (folder / "in" / "bulk.zip").write_bytes(pack({"Zoe/a1_noising.ipynb": b"{"}))
    table, left_out, printed = run()
    assert len(table) == 21
    assert all({"ada", name} in names_of(table[:6]) for name in ("half-letter", "number"))
    assert left_out["large/a1_noising.ipynb"].startswith("expected at most 200000 letters of code, got ")
    assert "JSONDecodeError" in left_out["bulk.zip/Zoe/a1_noising.ipynb"]
    for name, (_, reason) in DAMAGED.items():
        file = name.decode("latin-1").replace("\n", "?").replace("\x1b", "?")
        said = [why for found, why in left_out.items() if found == file or found.startswith(f"{file}/")]
        assert any(reason in why for why in said), file
    assert f"21 pairs, {len(left_out)} files left out" in printed


def test_the_solution_is_compared_as_well(course):
    folder, run = course
    written(folder / "made" / "instructor" / "a1_noising" / "a1_noising.ipynb", disguised(answered(BEN), {}, "x"))
    table, _, _ = run()
    assert len(table) == 15
    solution = table[table.second == similarity.SOLUTION].set_index("first").similarity
    assert solution["ben/a1_noising"] > 0.9 and (solution.drop("ben/a1_noising") < 0.4).all()


def test_files_of_one_student_are_not_compared(course):
    folder, run = course
    written(folder / "in" / "kim-late" / "a1_noising.ipynb", answered(KIM), otter=OTTER)
    assert names_of(run()[0][:1]) == [{"kim", "kim-late"}]
    (folder / "rules.yaml").write_text("assignments:\n  a1_noising: {title: A1, weight: 1, automatic: 2}\n")
    (folder / "students.csv").write_text("name,id\nkim,1\nkim-late,1\nlee,2\n")
    table, _, _ = run("--students", str(folder / "students.csv"), "--rules", str(folder / "rules.yaml"))
    assert len(table) == 14 and {"kim", "kim-late"} not in names_of(table)


def test_nobody_alone_is_compared(course):
    folder, run = course
    for student in ("ada", "ben", "lee", "max"):
        (folder / "in" / student / "a1_noising.ipynb").unlink()
    table, left_out, _ = run()
    assert len(table) == 0 and all("an empty folder" in why for why in left_out.values()) and len(left_out) == 4


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--shown", "0"], "--shown: expected at least 1, got 0"),
        (["--students", "x.csv"], "--students and --rules: expected both or neither"),
        (["--students", "x.csv", "--rules", "x.yaml"], "No such file or directory: 'x.yaml'"),
        (["--assignments", "nowhere"], "nowhere: expected students/NAME/NAME.ipynb, found none; run `make assign"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_written(course, capsys, arguments, expected):
    folder, run = course
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    assert expected in capsys.readouterr().err and not (folder / "out").exists()


def test_no_more_pairs_are_shown_than_asked_for(course):
    folder, run = course
    run("--shown", "3")
    few = (folder / "out" / "a1_noising.html").read_text()
    run()
    assert few.count("highlight-red'>") < (folder / "out" / "a1_noising.html").read_text().count("highlight-red'>")
    assert "groupby" not in few  # ada's
