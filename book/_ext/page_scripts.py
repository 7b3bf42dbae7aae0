"""What the pages load besides their own: from a CDN, or with OFFLINE=1 in the environment from the site itself.

Names and versions stand in web/packages.json; `tools/fetch_scripts.py` brings the files of an offline build.
"""

import json
import os
import shutil
from pathlib import Path

WEB = Path(__file__).parents[2] / "web"
PACKAGES = json.loads((WEB / "packages.json").read_text())
SITE_FOLDER = "npm"


def address(package, path, *, offline, site=""):
    """Where a page finds a file of a package; `site` leads from the page to the site's root."""
    if offline:
        return f"{site}{SITE_FOLDER}/{package}/{path}"
    return f"https://cdn.jsdelivr.net/npm/{package}@{PACKAGES[package]['version']}/{path}"


def is_offline():
    return bool(os.environ.get("OFFLINE"))


def choose_addresses(app, config):
    def script(package, path):  # Sphinx and MyST-NB start from _static
        return address(package, path, offline=is_offline(), site="../")

    config.mathjax_path = script("mathjax", "es5/tex-mml-chtml.js")
    config.nb_ipywidgets_js = {
        script("requirejs", "require.js"): {},
        script("@jupyter-widgets/html-manager", "dist/embed-amd.js"): {},
    }


def add_own(app, pagename, templatename, context, doctree):
    app.add_js_file("../widgets.js")
    if pagename == "playground":
        runtime = address("onnxruntime-web", "dist/", offline=is_offline())
        app.add_js_file("../playground/playground.js", type="module", **{"data-runtime": runtime})
        app.add_css_file("../playground/playground.css")


def copy_packages(app, exception):
    """Put the scripts into an offline site, and take them out of any other."""
    folder = Path(app.outdir) / SITE_FOLDER
    if exception is None and app.builder.name == "html":
        shutil.rmtree(folder, ignore_errors=True)
        if is_offline():
            used = [name for name in PACKAGES if name not in ("axe-core", "reveal.js")]  # of tests and slides alone
            for package in used:
                shutil.copytree(WEB / "node_modules" / package, folder / package)


def setup(app):
    app.connect("config-inited", choose_addresses, priority=400)
    app.connect("html-page-context", add_own)
    app.connect("build-finished", copy_packages)
    return {"parallel_read_safe": True}
