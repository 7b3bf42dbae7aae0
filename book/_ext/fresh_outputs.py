"""Run a chapter again whenever what it shows may have changed, and no other.

The execution cache knows a notebook by its code alone. What else decides its outputs are the parts of the
package that it reaches, by name and by their imports, the data, and the locked versions. A digest of all
these is kept for each chapter beside the cache; where it has changed, the chapter's outputs are dropped.
A name that cannot be followed stands for the whole package.
"""

import ast
import hashlib
import json
import re
from pathlib import Path

from jupyter_cache import get_cache

ROOT = Path(__file__).parents[2]
ALWAYS = ["data/**/*", "constraints.txt"]
NAME = re.compile(r"\b(?:dl|damm_lite)((?:\.[A-Za-z_]\w*)+)|from damm_lite((?:\.\w+)*) import (\([^)]*\)|.+)")


def modules_in(package):
    """{dotted name: path} of a package's modules; a sub-package by its stub, which says where its names are."""
    paths = {}
    for file in (p.with_suffix("") for p in package.rglob("*.py")):
        stub = file.with_suffix(".pyi")
        dotted = ".".join(file.relative_to(package).parts).removesuffix("__init__").rstrip(".")
        paths[dotted] = stub if stub.is_file() else file.with_suffix(".py")
    return paths


def imported_by(path, modules, here):
    """{name: module that it comes from} of what a file imports from the package; `here` is its folder, dotted."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import) and any(alias.name.startswith("damm_lite") for alias in node.names):
            return {"damm_lite": "all of it"}
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = ".".join(filter(None, [here, node.module or ""]))
        elif (node.module or "").split(".")[0] == "damm_lite":
            base = node.module.removeprefix("damm_lite").lstrip(".")
        else:
            continue
        for alias in node.names:
            inner = f"{base}.{alias.name}".lstrip(".")
            found[alias.asname or alias.name] = inner if inner in modules else base
    return found


def reached(code, package):
    """The names of the package's modules on which some code depends; None where that cannot be told."""
    modules, todo = modules_in(package), []
    for dotted, source, imported in NAME.findall(code):
        if imported:
            source = source.lstrip(".")
            inner = (f"{source}.{name}".lstrip(".") for name in re.findall(r"\w+", imported))
            todo += [source, *(name for name in inner if name in modules)]
            continue
        module = ""
        for part in dotted.lstrip(".").split("."):
            names = imported_by(modules[module], modules, module) if modules[module].suffix == ".pyi" else {}
            inner = f"{module}.{part}".lstrip(".")
            if names.get(part) is None and inner not in modules:
                if module == "" or modules[module].suffix == ".pyi":
                    return None
                break
            module = names.get(part, inner)
        todo.append(module)
    found = set()
    while todo:
        name = todo.pop()
        if name not in modules:
            return None
        if name not in found:
            found.add(name)
            if modules[name].suffix == ".py":
                todo += imported_by(modules[name], modules, name.rpartition(".")[0]).values()
    return found


def key_of(notebook, root):
    """A digest of all files, beside the notebook itself, that decide its outputs."""
    package, digest = root / "damm_lite", hashlib.sha256()
    cells = json.loads(notebook.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    modules, names = modules_in(package), reached(code, package)
    files = {modules[name] for name in names} if names is not None else set(package.rglob("*.py*"))
    files |= {path for pattern in ALWAYS for path in root.glob(pattern)}
    for path in sorted(path for path in files if path.is_file() and "__pycache__" not in path.parts):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_of(root):
    """The folder of the chapters' outputs."""
    return root / "_build" / ".jupyter_cache"


def drop_stale(root):
    """Forget the outputs of all chapters whose keys have changed; {path of a chapter: its key}."""
    cache, kept = get_cache(cache_of(root)), cache_of(root) / "keys.json"
    before = json.loads(kept.read_text()) if kept.is_file() else {}
    keys = {str(path): key_of(path, root) for path in sorted((root / "book").glob("*.ipynb"))}
    for record in cache.list_cache_records():
        if keys.get(record.uri) != before.get(record.uri):
            cache.remove_cache(record.pk)
    kept.write_text(json.dumps(keys, indent=1))
    return keys


def name_cache(app, config):
    config.nb_execution_cache_path = str(cache_of(ROOT))
    app.chapter_keys = {Path(path).stem: key for path, key in drop_stale(ROOT).items()}


def reread(app, env, added, changed, removed):
    """The pages whose outputs may be others than when they were read."""
    before, env.chapter_keys = getattr(env, "chapter_keys", {}), app.chapter_keys
    return {name for name, key in app.chapter_keys.items() if before.get(name) != key} & env.found_docs


def setup(app):
    app.connect("config-inited", name_cache)
    app.connect("env-get-outdated", reread)
    return {"parallel_read_safe": True}
