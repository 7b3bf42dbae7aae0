"""A headless Chromium over the built pages, without any network: what a CDN would send comes from npm's packages."""

import functools
import mimetypes
import re
import tempfile
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from page_scripts import PACKAGES, SITE_FOLDER

ROOT = Path(__file__).parents[1]
HTML = ROOT / "_build" / "html"
CHROMIUM = Path("/usr/bin/chromium")
IS_OFFLINE = (HTML / SITE_FOLDER).is_dir()
SCRIPTS = ROOT / "web" / "node_modules"
CDN = "https://cdn.jsdelivr.net/npm/"
ELSEWHERE = re.compile(r"^(?!http://127\.0\.0\.1:|data:|blob:)")  # what is not local: the rest needs no answer of ours
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip

for needed, remedy in (
    (CHROMIUM, "install Debian's package chromium"),
    (HTML / "index.html", "run `make book`"),
    (SCRIPTS / "axe-core", "run `make web/node_modules/installed`"),
):
    if not needed.exists():
        pytest.skip(f"no {needed}; {remedy}", allow_module_level=True)


@contextmanager
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def served(folder):
    """The folder over HTTP; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@contextmanager
def built_site():
    """The built pages below the path at which they will stand; yields their address."""
    (link,) = BeautifulSoup((HTML / "404.html").read_text(), "html.parser").find_all("link", rel="canonical")
    path = urlsplit(link["href"]).path.removesuffix("/404.html")
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / path[1:]).symlink_to(HTML)
        with served(root) as address:
            yield address + path


def package_file(url):
    """The file of an npm package that a CDN's address names; checks the version against web/packages.json."""
    name, _, rest = urlsplit(url).path.removeprefix("/npm/").rpartition("@")
    version, _, path = rest.partition("/")
    assert PACKAGES[name]["version"] == version, url
    return SCRIPTS / name / path


def answer(route, refused):
    """Answer a request `ELSEWHERE`: the CDN's from npm's packages; refuse and note all others.

    A site that was built with OFFLINE=1 has those packages itself, and nothing is answered for it.
    """
    url = route.request.url
    if not IS_OFFLINE and url.startswith(CDN) and package_file(url).is_file():
        kind = mimetypes.guess_type(url)[0] or "application/octet-stream"
        headers = {"Access-Control-Allow-Origin": "*", "Content-Type": kind}
        route.fulfill(body=package_file(url).read_bytes(), headers=headers)
    else:
        refused.append(url)
        route.abort()
