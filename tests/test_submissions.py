"""What was handed in: every file gets a row with a reason, none ends the search, and none is written outside."""

import io
import json
import os
import socket
import zipfile

import nbformat
import pytest

import submissions
from notebooks import assignment_of
from submissions import find

NAMES = ["a1_noising", "a2_take_apart"]
OTTER = {"assignment_name": "a1_noising"}


def notebook(source="x = 1", **metadata):
    """A notebook of one cell, as bytes."""
    cell = nbformat.v4.new_code_cell(source)
    return nbformat.writes(nbformat.v4.new_notebook(cells=[cell], metadata=metadata)).encode()


def pack(files):
    """A zip with these files, as bytes. The names of links have an attribute of Unix, as zip -y makes them."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = (0o120777 if name.startswith("link") else 0o100644) << 16
            archive.writestr(member, data)
    return made.getvalue()


def flagged(data, flags):
    """An archive of one file with these flags in both of its headers: 1 says encrypted, 0x800 a name in UTF-8."""
    changed = bytearray(data)
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(header) + offset
        changed[place : place + 2] = flags.to_bytes(2, "little")
    return bytes(changed)


def search(folder, work):
    """Submissions by their path."""
    work.mkdir(exist_ok=True)
    found = find(folder, work, NAMES)
    assert len({one.file for one in found}) == len({one.student for one in found}) == len(found)
    return {one.file: one for one in found}


@pytest.fixture
def places(tmp_path):
    """(the folder of submissions, a folder for work)."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in", tmp_path / "work"


GOOD = notebook(otter=OTTER)
DEEP = b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
DAMAGED = {  # content, and words of the reason
    b"zero.ipynb": (b"", "an empty file"),
    b"cut.ipynb": (GOOD[: len(GOOD) // 2], "JSONDecodeError"),
    b"conflict.ipynb": (b"<<<<<<< HEAD\n" + GOOD, "JSONDecodeError"),
    b"pointer.ipynb": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "JSONDecodeError"),
    b"latin.ipynb": (b'{"name": "M\xfcller"}', "UnicodeDecodeError"),
    b"deep.ipynb": (DEEP, "RecursionError"),
    b"list.ipynb": (b"[1, 2]", "not a notebook of an assignment"),
    b"number.ipynb": (b"9" * 9000, "not a notebook of an assignment"),
    b"cells.ipynb": (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": {"a": 1}}', "not a notebook"),
    b"strings.ipynb": (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": ["a"]}', "not a notebook"),
    b"future.ipynb": (b'{"nbformat": 99, "nbformat_minor": 0, "metadata": {}, "cells": []}', "not a notebook"),
    b"stranger.ipynb": (notebook(otter={"assignment_name": "b7"}), "there is no assignment 'b7'"),
    b"climber.ipynb": (notebook(otter={"assignment_name": "../../etc"}), "there is no assignment '../../etc'"),
    b"anonymous.ipynb": (notebook(), "neither metadata nor name says which"),
    b"master.ipynb": (notebook("# ASSIGNMENT CONFIG\nname: a1_noising"), "a master"),
    b"M\xfcller.ipynb": (b"{", "JSONDecodeError"),
    b"two\nlines\x1b.ipynb": (b"{", "JSONDecodeError"),
    b"script.py": (b"x = 1", "got a .py"),
    b"README": (b"hello", "got a name without ending"),
    b"pages.pdf": (b"%PDF", "expected a notebook (.ipynb), or a .zip with one"),
    b"renamed.zip": (b"Rar!\x1a\x07", "BadZipFile"),
    b"half.zip": (pack({"a1.ipynb": GOOD})[:90], "BadZipFile"),
    b"nothing.zip": (pack({}), "an empty archive"),
    b"fruit.zip": (pack({"__MACOSX/._a1.ipynb": b"", ".DS_Store": b""}), "an empty archive"),
    b"secret.zip": (flagged(pack({"a1.ipynb": GOOD}), 1), "password"),
    b"up.zip": (pack({"../../a1.ipynb": GOOD}), "leads out of the archive"),
    b"root.zip": (pack({"/tmp/a1.ipynb": GOOD}), "leads out of the archive"),
    b"windows.zip": (pack({"..\\a1.ipynb": GOOD}), "leads out of the archive"),
    b"linked.zip": (pack({"link.ipynb": b"/etc/passwd"}), "a link"),
    b"dots.zip": (pack({".": GOOD}), "expected a notebook"),
    b"doll.zip": (pack({"1.zip": pack({"2.zip": pack({"3.zip": pack({"a1.ipynb": GOOD})})})}), "archives inside"),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A folder with all that is damaged, other kinds of things, and two that are right; what was found there."""
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "in").mkdir()
    for name, (content, _) in DAMAGED.items():
        with open(os.fsencode(folder / "in") + b"/" + name, "wb") as file:
            file.write(content)
    (folder / "in" / "aaa.ipynb").write_bytes(GOOD)
    (folder / "in" / "zzz.IPYNB").write_bytes(GOOD)
    (folder / "in" / "empty").mkdir()
    (folder / "in" / "folder.ipynb").mkdir()
    (folder / "in" / "shy").mkdir()
    (folder / "in" / "shy" / ".hidden.ipynb").write_bytes(GOOD)
    (folder / "in" / "a link.ipynb").symlink_to("/etc/passwd")
    (folder / "in" / "circle").symlink_to(folder / "in")
    os.mkfifo(folder / "in" / "pipe.ipynb")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "in" / "plug.ipynb"))
    deep = folder / "in" / "/".join(["deeper"] * 40)
    deep.mkdir(parents=True)
    (deep / "a1.ipynb").write_bytes(GOOD)
    return folder, search(folder / "in", folder / "work")


@pytest.mark.parametrize("name", DAMAGED, ids=repr)
def test_what_is_damaged_gets_a_row_with_the_reason(damaged, name):
    text = name.decode("latin-1").replace("\n", "?").replace("\x1b", "?")
    rows = [one for file, one in damaged[1].items() if file == text or file.startswith(f"{text}/")]
    assert rows and all(one.notebook is None for one in rows)
    assert any(DAMAGED[name][1] in one.reason for one in rows), [one.reason for one in rows]


def test_so_do_things_that_are_no_files_and_the_rest_is_found(damaged):
    folder, found = damaged
    assert found["aaa.ipynb"].assignment == found["zzz.IPYNB"].assignment == "a1_noising"
    assert [file for file, one in found.items() if one.notebook] == ["aaa.ipynb", "zzz.IPYNB"]
    assert all("empty folder" in found[name].reason for name in ("empty", "shy", "folder.ipynb"))
    assert "a link" in found["a link.ipynb"].reason and "a link" in found["circle"].reason
    assert "neither a file" in found["pipe.ipynb"].reason and "neither a file" in found["plug.ipynb"].reason
    (deep,) = (one for file, one in found.items() if file.startswith("deeper"))
    assert "folders inside each other" in deep.reason
    assert len(found) == len(DAMAGED) + 10
    assert sorted(path.name for path in folder.iterdir()) == ["in", "work"]
    copies = [path.name for path in (folder / "work").iterdir()]
    assert all(name.endswith(("-graded.ipynb", "-unpacked")) for name in copies)


def test_an_archive_that_unfolds_too_far_is_refused(places, monkeypatch):
    monkeypatch.setattr(submissions, "ARCHIVE", 2**20)
    monkeypatch.setattr(submissions, "MEMBERS", 20)
    bomb = pack({"a1.ipynb": bytes(2**21)})
    assert len(bomb) < 2**12
    (places[0] / "large.zip").write_bytes(bomb)
    (places[0] / "many.zip").write_bytes(pack({f"{n}.txt": b"" for n in range(21)}))
    inner = pack({"a1.ipynb": bytes(700_000)})
    (places[0] / "nested.zip").write_bytes(pack({"1.zip": inner, "2.zip": inner}))
    found = search(*places)
    assert "at most 1 MiB" in found["large.zip"].reason and "20 files" in found["many.zip"].reason
    assert "at most 1 MiB" in found["nested.zip/2.zip"].reason
    assert sum(path.stat().st_size for path in places[1].iterdir()) < 2**20


def test_a_large_notebook_is_not_read(places):
    with open(places[0] / "a1.ipynb", "wb") as file:
        file.truncate(2**30)  # with no disk taken
    assert "expected at most 32 MiB, got 1024" in search(*places)["a1.ipynb"].reason


@pytest.mark.parametrize("said", [None, 3, ["a1_noising"], {"a": 1}, "", True])
def test_where_metadata_says_nothing_the_name_of_the_file_does(places, said):
    (places[0] / "a2_fusion (1).ipynb").write_bytes(notebook(otter={"assignment_name": said}))
    (places[0] / "mine.ipynb").write_bytes(notebook(otter={"assignment_name": said}))
    found = search(*places)
    assert found["a2_fusion (1).ipynb"].assignment == "a2_take_apart"
    assert "neither metadata nor name" in found["mine.ipynb"].reason and not found["mine.ipynb"].assignment


@pytest.mark.parametrize("metadata", [{}, {"otter": None}, {"otter": "a1"}, None, [], "text"])
def test_metadata_may_be_anything(places, metadata):
    made = json.loads(notebook()) | {"metadata": metadata}
    (places[0] / "kim_a1.ipynb").write_text(json.dumps(made))
    found = search(*places)["kim_a1.ipynb"]
    assert found.assignment == "a1_noising" and found.notebook


@pytest.mark.parametrize(
    "name, expected",
    [
        ("a2_fusion.ipynb", "a2_take_apart"),
        ("a2_fusion (1).ipynb", "a2_take_apart"),
        ("A2-Copy1.IPYNB", "a2_take_apart"),
        ("leekim_LATE_1234_5678_a1_noising-2.ipynb", "a1_noising"),
        ("a1_noising for a2.ipynb", "a1_noising"),
        ("a1 and a2.ipynb", ""),
        ("a12.ipynb", ""),
        ("kim.ipynb", ""),
        ("1.ipynb", ""),
    ],
)
def test_an_assignment_is_known_by_its_name(name, expected):
    assert assignment_of(name, NAMES) == expected


def test_the_copy_has_the_kernel_that_there_is_and_nothing_of_the_student_but_cells(places):
    spec = {"name": "conda-env-course-py", "display_name": "course", "language": "julia"}
    tests = {"q1": {"name": "q1", "points": 100}}
    (places[0] / "kim.ipynb").write_bytes(notebook("y = 2", kernelspec=spec, otter=OTTER | {"tests": tests}))
    copy = nbformat.read(search(*places)["kim.ipynb"].notebook, as_version=4)
    assert copy.metadata.kernelspec.name == "python3"
    assert copy.metadata.otter == OTTER and copy.cells[0].source == "y = 2"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_notebook_may_be_in_any_utf_and_of_an_old_version(places, encoding):
    cell = {"cell_type": "code", "input": ["x = 'é'"], "language": "python", "outputs": [], "metadata": {}}
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [cell], "metadata": {}}]}
    (places[0] / "a1_old.ipynb").write_text(json.dumps(old, ensure_ascii=False), encoding=encoding)
    copy = nbformat.read(search(*places)["a1_old.ipynb"].notebook, as_version=4)
    assert copy.cells[0].source == "x = 'é'"


def test_no_two_names_or_pages_are_the_same(places):
    files = ["kim/lee-A1.ipynb", "kim-lee/A1.ipynb", "kim-lee/A1.IPYNB", "kim-lee/a1.ipynb", "kim/lee/A1.py"]
    for name in [*files, "=cmd.ipynb", "ü.ipynb", "u\u0308.ipynb", "é" * 100 + "1.ipynb", "é" * 100 + "2.ipynb"]:
        path = places[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(GOOD)
    places[1].mkdir()
    found = find(*places, NAMES)
    assert len(found) == 10
    for names in ([one.student for one in found], [one.page for one in found]):
        assert len({name.casefold() for name in names}) == 10
    assert all(len(os.fsencode(one.page)) < 200 and "/" not in one.page for one in found)
    assert {"kim/lee-A1", "kim-lee/A1", "./=cmd"} <= {one.student for one in found}


def test_archives_of_a_platform_are_read_as_they_come(tmp_path):
    inner = pack({"own/a2_take_apart.ipynb": notebook(), "own/notes.txt": b"", "__MACOSX/._x": b""})
    apple = flagged(pack({"Müller/a1.ipynb": GOOD}), 0)  # a name in UTF-8, and no word about it
    bulk = tmp_path / "A1 and A2.ZIP"
    bulk.write_bytes(pack({"Kim Lee_12_file/a1.ipynb": GOOD, "Ben_13_file/mine.zip": inner, "apple.zip": apple}))
    found = search(bulk, tmp_path / "work")
    assert found["A1 and A2.ZIP/Kim Lee_12_file/a1.ipynb"].assignment == "a1_noising"
    ben = found["A1 and A2.ZIP/Ben_13_file/mine.zip/own/a2_take_apart.ipynb"]
    assert ben.assignment == "a2_take_apart" and ben.student == "A1 and A2.ZIP/Ben_13_file/mine/own/a2_take_apart"
    assert "got a .txt" in found["A1 and A2.ZIP/Ben_13_file/mine.zip/own/notes.txt"].reason
    assert found["A1 and A2.ZIP/apple.zip/Müller/a1.ipynb"].notebook and len(found) == 4


def test_a_cloned_repository_is_one_submission(places):
    def repository(name, **files):
        folder = places[0] / name
        (folder / ".git" / "objects").mkdir(parents=True)
        for file, content in files.items():
            (folder / f"{file.replace('_dot_', '.')}").write_bytes(content)

    repository("kim", README_dot_md=b"hi", a1_dot_ipynb=GOOD, own_dot_ipynb=notebook(), main_dot_py=b"")
    repository("lee", README_dot_md=b"hi", a1_dot_ipynb=notebook("# ASSIGNMENT CONFIG"))
    repository("max", a2_dot_ipynb=b"{", x_dot_py=b"")
    repository("new")
    (places[0] / "bare" / "objects").mkdir(parents=True)
    (places[0] / "bare" / "refs").mkdir()
    (places[0] / "bare" / "HEAD").write_text("ref: refs/heads/main")
    zipped = {"ben-repo/.git/config": b"", "ben-repo/a1.ipynb": GOOD, "ben-repo/x.py": b"", "other/x.py": b""}
    (places[0] / "ben.zip").write_bytes(pack(zipped))
    found = search(*places)
    assert set(found) == {"bare", "ben.zip/ben-repo/a1.ipynb", "ben.zip/other/x.py", "kim/a1.ipynb", "lee", "new"} | {
        "max/a2.ipynb"
    }
    assert "without a notebook of an assignment" in found["lee"].reason and found["lee"].reason == found["new"].reason
    assert "git clone" in found["bare"].reason
    assert found["max/a2.ipynb"].assignment == "a2_take_apart" and found["max/a2.ipynb"].reason


def test_a_folder_that_is_itself_a_repository_is_no_submission(places):
    (places[0] / ".git").mkdir()
    (places[0] / "kim.ipynb").write_bytes(GOOD)
    (places[0] / "lee.py").write_bytes(b"")
    assert list(search(*places)) == ["kim.ipynb", "lee.py"]


def test_hidden_files_and_those_of_systems_get_no_row(places):
    for name in (".ipynb_checkpoints", "__MACOSX", "kim"):
        (places[0] / name).mkdir()
        (places[0] / name / "a1.ipynb").write_bytes(GOOD)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "~$notes.docx"):
        (places[0] / name).write_bytes(b"")
    assert list(search(*places)) == ["kim/a1.ipynb"]
