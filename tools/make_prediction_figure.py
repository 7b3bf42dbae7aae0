"""Draw book/_static/prediction.png, the figure of the README: python tools/make_prediction_figure.py"""

from pathlib import Path

import damm_lite as dl

OUT = Path(__file__).resolve().parents[1] / "book" / "_static" / "prediction.png"


def main():
    model, schedule = dl.load_pretrained("tumour-64")
    batch = dl.stack(dl.SyntheticTumours(n=8, size=64, seed=7))
    result = dl.predict(model, schedule, batch["primary"], batch["secondary"], num_steps=20, seed=0)
    dl.show_batch(batch, result).savefig(OUT, dpi=110, facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    main()
