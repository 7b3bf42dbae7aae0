"""The house: levels that import downwards alone, small files, few parameters, typed and documented, shipped whole."""

import ast
import doctest
import importlib
import inspect
import io
import shutil
import subprocess
import sys
import tokenize
import zipfile
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import damm_lite

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "damm_lite"
FILES = sorted(PACKAGE.rglob("*.py"))
BELOW = {"data", "names", "atomic", "download"}
LEVELS = ["below", "images", "method", "teaching", "experiments"]
METHOD_LINES, FILE_LINES, PARAMETERS = 2000, 260, 8


def name_of(path):
    """tumours.simulate for damm_lite/tumours/simulate.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def level_of(name):
    folder = name.split(".")[0]
    if name in BELOW:
        return "below"
    return {"tumours": "images", "brains": "images", "teaching": "teaching", "experiments": "experiments"}.get(
        folder, "method"
    )


@cache
def imports_of(path):
    """The modules of the package that one of its files imports, wherever it does."""
    names = {name_of(other) for other in FILES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("damm_lite"):
            module = node.module.removeprefix("damm_lite").removeprefix(".")
            joined = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            found |= (joined | {module}) & names
    return found


MODULES = [path for path in FILES if path.name != "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_never_go_up(path):
    here = LEVELS.index(level_of(name_of(path)))
    for other in imports_of(path):
        assert LEVELS.index(level_of(other)) <= here, f"{name_of(path)} imports {other}"


def test_there_is_no_circle():
    graph = {name_of(path): imports_of(path) for path in MODULES}
    assert sum(map(len, graph.values())) > 50
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def lines_of_code(path):
    """How many lines are neither blank, comment nor docstring."""
    source = path.read_text()
    documented = set()
    for node in ast.walk(ast.parse(source)):
        first = getattr(node, "body", [None])
        first = first[0] if isinstance(first, list) and first else None
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            documented |= set(range(first.lineno, first.end_lineno + 1))
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = (t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in nothing)
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - documented)


def test_lines_are_counted(tmp_path):
    (tmp_path / "x.py").write_text(
        '"""Doc\n\nmore."""\n\n# comment\nx = (1,\n     2)  # one\n\n\ndef f():\n    """Doc."""\n    return 1\n\n\n'
        "def g():\n    f()\n"
    )
    assert lines_of_code(tmp_path / "x.py") == 6


def test_the_method_can_be_read_in_an_evening():
    assert sum(lines_of_code(path) for path in PACKAGE.glob("*.py")) <= METHOD_LINES


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "tools").glob("*.py"))], ids=lambda path: path.name)
def test_a_file_holds_one_idea(path):
    assert len(path.read_text().splitlines()) <= FILE_LINES


def functions_in(path):
    """(qualified name, node) of every function of a file that is not inside another."""

    def walk(body, prefix):
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield prefix + node.name, node
            elif isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")

    return list(walk(ast.parse(path.read_text()).body, ""))


def parameters_of(node):
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    return [argument for argument in every if argument and argument.arg not in ("self", "cls")]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_take_few_parameters(path):
    for name, node in functions_in(path):
        most = PARAMETERS + (name == "predict")
        assert len(parameters_of(node)) <= most, f"{name_of(path)}.{name}"


def test_a_constructor_takes_few_parameters():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
                fields = [line for line in node.body if isinstance(line, ast.AnnAssign)]
                assert len(fields) <= PARAMETERS, f"{name_of(path)}.{node.name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_functions_are_typed(path):
    for name, node in functions_in(path):
        public = not any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
        if public:
            bare = [argument.arg for argument in parameters_of(node) if argument.annotation is None]
            assert not bare, f"{name_of(path)}.{name}: {', '.join(bare)}"
            assert node.returns or node.name == "__init__" or node.name == "__post_init__", f"{name_of(path)}.{name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_examples_in_docstrings_run(path):
    module = importlib.import_module(f"damm_lite.{name_of(path)}")
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not failed


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(f"damm_lite.{name_of(path)}") for path in MODULES]
    examples = [test for module in modules for test in finder.find(module) if test.examples]
    assert len(examples) >= 8


@pytest.mark.parametrize("package", ["", ".tumours", ".brains", ".teaching", ".experiments"])
def test_every_listed_name_is_there_and_documented(package):
    module = importlib.import_module(f"damm_lite{package}")
    for name in module.__all__:
        item = getattr(module, name)
        if inspect.isroutine(item) or inspect.isclass(item):
            assert len(item.__doc__ or "") > 20, name


def test_what_is_shared_is_one():
    for package in ("tumours", "brains", "teaching"):
        module = getattr(damm_lite, package)
        for name in set(module.__all__) & set(damm_lite.__all__):
            assert getattr(module, name) is getattr(damm_lite, name)


def test_the_wheel_holds_every_file(tmp_path):
    source = tmp_path / "source"  # setuptools leaves a folder behind
    shutil.copytree(PACKAGE, source / "damm_lite", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if name.startswith("damm_lite/")}
    kinds = (".py", ".pyi", ".txt", ".tsv", ".yaml")
    ours = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*") if path.suffix in kinds}
    assert shipped == ours
