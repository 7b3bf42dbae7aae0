"""Pages that the build itself computes, from data and run times: they are no chapters to open elsewhere."""


def renew_computed(app, env, added, changed, removed):
    """Run times, the date, and which chapter shows what, are those of this build whenever any page is read anew."""
    return {"status", "api"} & env.found_docs if added | changed else set()


def hide_launch_buttons(app, pagename, templatename, context, doctree):
    """Colab opens notebooks only, and the theme offers it for every page that has run."""
    if context.get("page_source_suffix") == ".md":
        app.env.metadata[pagename].pop("kernelspec", None)


def setup(app):
    app.connect("env-get-outdated", renew_computed)
    app.connect("html-page-context", hide_launch_buttons, priority=100)
    return {"parallel_read_safe": True}
