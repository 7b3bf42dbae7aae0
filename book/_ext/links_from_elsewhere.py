"""What others need for their links to this book: its whole address, and what a chapter is about.

The site stands on the GitHub Pages of the repository that _config.yml names. The page for what is not found
is served at any depth, so its own links need the whole path.
"""

from html import escape
from urllib.parse import urlsplit

from docutils import nodes


def address_of(repository):
    """https://owner.github.io/name/ for https://github.com/owner/name."""
    owner, name = urlsplit(repository).path.strip("/").split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def place(app, config):
    config.html_baseurl = config.ogp_site_url = address_of(config.html_theme_options["repository_url"])
    config.notfound_urls_prefix = urlsplit(config.html_baseurl).path


def describe(app, pagename, templatename, context, doctree):
    """A chapter's aims, which its first box names, describe it; the first words on its page are those of a badge."""
    for box in doctree.findall(nodes.admonition) if doctree else ():
        if "tip" in box["classes"]:
            about = " ".join(box.astext().split())
            context["meta"]["og:description"] = about
            context["metatags"] += f'<meta name="description" content="{escape(about)}" />\n'
            return


def setup(app):
    app.connect("config-inited", place, priority=400)
    app.connect("html-page-context", describe, priority=400)
    return {"parallel_read_safe": True}
