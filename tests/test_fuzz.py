"""Damaged and hostile files through every reader: the right array or an error that names the file, soon and small."""

import pytest

from corpus import FAMILIES, corpus
from survey import summary, survey

SHORT = 0.08  # of the corpus


@pytest.mark.torture
def test_every_file_is_read_right_or_refused_by_name(tmp_path, torture, record_property):
    cases = corpus(tmp_path, 1.0 if torture else SHORT)
    assert len(cases) >= (500 if torture else 55) and {case.family for case in cases} == {f.__name__ for f in FAMILIES}
    table = survey(cases)
    print(summary(table).to_string())  # noqa: T201 (which file had which outcome, where the test fails)
    bad = table[~table.outcome.isin(["right", "refused"])]
    assert bad.empty, bad.to_string()
    assert not list(tmp_path.rglob("unpickled")), "something in a file was run"
    counts = table.outcome.value_counts()
    record_property("tried", f"{len(cases)} files of {len(FAMILIES)} kinds, sound and damaged, through every reader")
    record_property("result", f"{counts['right']} read as what was written, {counts['refused']} refused by name")


def test_the_corpus_is_the_same_again(tmp_path):
    first, second = (corpus(tmp_path / name, 0.02) for name in "ab")
    for one, other in zip(first, second, strict=True):
        assert one.name == other.name
        if one.path.is_file() and ".gz" not in one.path.name:
            assert one.path.read_bytes() == other.path.read_bytes(), one
