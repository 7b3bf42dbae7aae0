"""The key of A5, in the process of the judge: the settings that were handed in are measured anew, with other noise.

The playground computes in JavaScript what `predict` computes here, on the same tissues (tests/test_playground.py).
"""

from functools import cache

import damm_lite as dl
from damm_lite.data import stack
from damm_lite.tumours import misregister, read_channel

NOISE = 8_650_001  # of the first sample; change it for a course, with the masters of your own
NETWORKS = {"ours": "study-ours", "addition": "study-ours-addition", "query": "study-ours-query-head"}
MOVED, WIDEST, MARGIN, PIXEL = 24, 0.04, 0.008, 2.0  # µm; of a band; of the best setting; µm
TISSUES, STEPS, SAMPLES = 8, 20, 4


def gate_of(setting):
    gate = setting["gate"]
    return {"damm": dl.DAMMP(setting.get("gamma", 0.5)), "pixel": dl.SpatialDAMMP()}.get(gate, gate)


def tissue(number, right):
    """One of the playground's tissues, its nuclei imaged `right` µm off."""
    folder, name = dl.fetch("playground_tissues"), f"{number:05d}.tif"
    vessels, nuclei, target = (
        read_channel(folder / channel / name, channel, PIXEL) for channel in ("CD31", "DAPI", "QD")
    )
    imaged = misregister(nuclei, (0, round(right / PIXEL)))
    images = dict(primary=vessels, secondary=imaged, target=target)
    return {key: dl.to_tensor(image) for key, image in images.items()}


def error(setting):
    """What the playground calls so: of the mean of four samples, over all pixels and tissues."""
    model, schedule = dl.load_pretrained(setting["network"])
    batch = stack(tissue(number, setting["right"]) for number in range(1, TISSUES + 1))
    images = batch["primary"], batch["secondary"]
    x0 = dl.predict(model, schedule, *images, STEPS, NOISE, gate_of(setting), SAMPLES).x0
    return float(dl.mae(x0, batch["target"]).mean())


@cache
def reference(network, gate, right):
    """The same, of a setting that the key asks for by itself."""
    return error(dict(network=network, gate=gate, right=right))


def rows(call, gate=None):
    """The settings that were handed in, where they are settings."""
    found, fits = call("answers"), []
    assert isinstance(found, list), f"answers: expected a list, got {type(found).__name__}"
    for row in found:
        assert isinstance(row, dict), f"no setting of the page: {row}"
        if row.get("network") not in NETWORKS.values():
            continue  # that of the chapters, which no question asks for
        assert row.get("gate") in ("damm", "pixel", "uni", "multi"), f"no gate of the page: {row}"
        numbers = [row.get(name) for name in ("right", "low", "high", *(["gamma"] if row["gate"] == "damm" else []))]
        assert all(type(x) in (int, float) for x in numbers), f"a number is missing: {row}"
        assert abs(row["right"]) <= 40, f"further than the page moves nuclei: {row}"
        if gate is None or row["gate"] == gate:
            fits.append(row)
    return fits


def given(settings, **wanted):
    """The one setting that has these values."""
    found = [row for row in settings if all(row[name] == value for name, value in wanted.items())]
    assert len(found) == 1, f"expected one setting with {wanted}, got {len(found)}"
    return found[0]


def holds(row):
    """That a band is no wider than allowed, and the setting's error in it."""
    assert 0 <= row["high"] - row["low"] <= WIDEST + 1e-9, f"a band of {row['high'] - row['low']:g}: {row}"
    found = error(row)
    assert row["low"] <= found <= row["high"], f"{found:.4f} is not between {row['low']} and {row['high']}"
    return found


def band_of(short, right):
    def question(call):
        holds(given(rows(call, "multi"), network=NETWORKS[short], right=right))

    return question


q1_ours, q1_addition, q1_query = (band_of(short, 0) for short in NETWORKS)
q2_ours, q2_addition, q2_query = (band_of(short, MOVED) for short in NETWORKS)


def of_the_gate(call):
    """The settings of question 3: the gate of the paper, at one gamma, in place and moved."""
    settings = [row for row in rows(call, "damm") if row["network"] == NETWORKS["ours"]]
    pair = [given(settings, right=right) for right in (0, MOVED)]
    assert pair[0]["gamma"] == pair[1]["gamma"], "expected one gamma, in place and moved"
    return pair


def q3_bands(call):
    for row in of_the_gate(call):
        holds(row)


def q3_pays(call):
    in_place, moved = (error(row) for row in of_the_gate(call))
    plain = [reference(NETWORKS["ours"], "multi", right) for right in (0, MOVED)]
    assert in_place <= plain[0] + 0.015, f"in place {in_place:.4f}, without the gate {plain[0]:.4f}"
    assert moved <= plain[1] - 0.01, f"moved {moved:.4f}, without the gate {plain[1]:.4f}"


def best(call):
    """The settings of question 4: the pair, in place and moved, whose bands have the lowest middle."""
    pairs = {}
    for row in rows(call):
        pairs.setdefault((row["network"], row["gate"], row.get("gamma")), {})[row["right"]] = row
    whole = [(pair[0], pair[MOVED]) for pair in pairs.values() if {0, MOVED} <= pair.keys()]
    assert whole, "expected a setting that was measured in place and moved"
    return min(whole, key=lambda pair: sum(row["low"] + row["high"] for row in pair))


def q4_bands(call):
    for row in best(call):
        holds(row)


def q4_better(call):
    found = sum(error(row) for row in best(call)) / 2
    book = sum(reference(NETWORKS["ours"], "pixel", right) for right in (0, MOVED)) / 2
    assert found <= book + MARGIN, f"{found:.4f}, study-ours by pixel {book:.4f}"
