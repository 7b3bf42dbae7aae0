"""Room for the sliders' frames, which the page's script draws when all else is there: nothing below them moves."""

import json
import re
import struct
from base64 import b64decode

from myst_nb.sphinx_ import NbMetadataCollector

VIEW = re.compile(r'<script type="application/vnd\.jupyter\.widget-view\+json">(.+?)</script>')
FRAME = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")


def first_frame(state, model):
    """The first PNG in a widget or its children, as bytes; None where there is none."""
    found = FRAME.search(str(state[model]["state"].get("value", "")))
    if found:
        return b64decode(found[1])
    children = (child.removeprefix("IPY_MODEL_") for child in state[model]["state"].get("children", ()))
    return next(filter(None, (first_frame(state, child) for child in children)), None)


def make_room(app, pagename, templatename, context, doctree):
    script = NbMetadataCollector.get_js_files(app.env, pagename).get("ipywidgets_state")
    if not script or "body" not in context:
        return
    state = json.loads(script[1]["body"])["state"]

    def wrap(view):
        frame = first_frame(state, json.loads(view[1])["model_id"])
        if frame is None:
            return view[0]
        width, height = struct.unpack(">II", frame[16:24])  # PNG's header
        return f'<div class="widget-room" style="--width: {width}; --height: {height}">{view[0]}</div>'

    context["body"] = VIEW.sub(wrap, context["body"])


def setup(app):
    app.connect("html-page-context", make_room)
    return {"parallel_read_safe": True}
