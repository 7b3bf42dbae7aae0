"""Interactive figures that also answer on a static page, where no kernel runs.

Every frame is drawn beforehand; the page's own script links a slider to the
frame on show. Sliders take the arrow keys once they have the focus.
"""

from base64 import b64encode
from collections.abc import Sequence
from html import escape

import ipywidgets


def slider_of_frames(frames: Sequence[bytes], labels: Sequence, name: str, alt: str) -> ipywidgets.VBox:
    """A slider over `frames` (PNG bytes); `labels` are the values of the
    quantity `name` in each of them.

    `alt` says what the frames show; the text for screen readers is that with
    name and label. Raises ValueError for no frames or unequal numbers.
    """
    if len(frames) != len(labels) or not frames:
        raise ValueError(f"expected as many frames as labels, at least one; got {len(frames)} and {len(labels)}")
    images = []
    for frame, label in zip(frames, labels, strict=True):
        # HTML and not Image: an Image has no alt text, and with a tooltip it
        # fails on a static page.
        source = f"data:image/png;base64,{b64encode(frame).decode()}"
        text = escape(f"{alt} {name}: {label}.")
        images.append(ipywidgets.HTML(f'<img src="{source}" alt="{text}" style="max-width: 100%">'))
    slider = ipywidgets.IntSlider(
        min=0, max=len(frames) - 1, description=name, readout=False, style={"description_width": "initial"}
    )
    slider.layout.width = "min(28rem, 100%)"
    if hasattr(ipywidgets, "Stack"):
        shown = ipywidgets.Stack(images, selected_index=0)
        ipywidgets.jslink((slider, "value"), (shown, "selected_index"))
    else:  # ipywidgets 7 (Colab) has no Stack, but there a kernel is running
        shown = ipywidgets.Box([images[0]])
        slider.observe(lambda change: setattr(shown, "children", [images[change["new"]]]), "value")
    return ipywidgets.VBox([slider, shown])
