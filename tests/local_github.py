"""In an environment made by test_colab.py: what is asked of GitHub over HTTPS comes from the local clone.

For git itself, its own setting `insteadOf` does the same.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse


class LocalClone(BaseAdapter):
    """Answers OWNER/NAME/raw/BRANCH/PATH with the clone's file PATH, and 404 where there is none."""

    def send(self, request, **options):
        _, _, _, raw, _, path = urlsplit(request.url).path.split("/", 5)
        file = Path(os.environ["LOCAL_CLONE"]) / path
        response = requests.Response()
        response.request, response.url = request, request.url
        response.status_code = 200 if raw == "raw" and file.is_file() else 404
        response.raw = HTTPResponse(file.open("rb") if response.ok else b"", preload_content=False)
        return response

    def close(self):
        pass


def mount(session):
    start(session)
    session.mount("https://github.com/", LocalClone())


start = requests.Session.__init__
requests.Session.__init__ = mount
