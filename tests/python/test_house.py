"""The rules of the house, as far as a machine can see them: who imports whom, how long a file is, what it is called."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
RUST = CHECKOUT / "src"
PYTHON = CHECKOUT / "python" / "regraft"

# Rust: what a module may use of this crate, besides itself. A layer may skip down, never go up or sideways.
BASE = {"error", "progress"}
MAY_USE = {
    "error": set(),
    "progress": {"error"},
    "store": BASE,
    "ledger": BASE | {"store"},
    "netcdf": BASE | {"store"},
    "zarr": BASE | {"store"},
    "parquet": BASE | {"store"},
    "collection": BASE | {"store", "ledger", "netcdf", "parquet", "zarr"},
    "migration": BASE | {"store", "ledger", "parquet"},
    "python": BASE | {"store", "ledger", "netcdf", "parquet", "zarr", "collection", "migration"},
}

# Rust: one dependency, one door.
DOORS = {
    "object_store": "store",
    "reqwest": "store",
    "hdf5_reader": "netcdf",
    "netcdf_reader": "netcdf",
    "blosc_src": "zarr",
    "zstd_safe": "zarr",
    "numpy": "python",
    "pyo3": "python",
}

# Python: rank of a module; it may import lower ranks only, and its equals where they belong together.
RANKS = {
    "errors": 0,
    "_core": 0,
    "flows": 3,
    "demo": 3,
    "aws": 3,
    "watch": 3,
    "deployments": 3,
    "cli": 4,
    "__main__": 5,
}
MIDDLE = 1

# Python: what may only be imported inside a function, because `import regraft` must be quick and must work without it.
HEAVY = {
    "boto3",
    "dask",
    "duckdb",
    "IPython",
    "matplotlib",
    "netCDF4",
    "pandas",
    "prefect",
    "pyarrow",
    "tqdm",
    "xarray",
    "zarr",
}

# Modules that are themselves only imported where they are used, and what they may then import at their top.
LATE = {
    "flows": {"prefect"},
    "expressions": {"duckdb", "pyarrow"},
    "column_types": {"pyarrow"},
    "migration_steps": {"pyarrow"},
}

LONGEST = 420
"""Lines of a file: about 400."""

EMPTY_NAMES = {"common", "handler", "handlers", "helper", "helpers", "manager", "misc", "util", "utils"}
SHORT_NAMES = "arr|attr|attrs|buf|cfg|cnt|ctx|dim|dims|dst|idx|mgr|num|ptr|src|tmp|val|vals"


def relative(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def rust_files() -> list[Path]:
    return sorted(RUST.rglob("*.rs"))


def python_files() -> list[Path]:
    return sorted(PYTHON.rglob("*.py"))


def rust_code(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a Rust file without comments."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code = re.sub(r"(^|\s)//.*$", "", line)
        if code.strip():
            yield number, code


def rust_module(path: Path) -> str:
    """The top module that a file belongs to: `zarr` for `src/zarr/plan.rs`."""
    return path.relative_to(RUST).parts[0].removesuffix(".rs")


def used_modules(code: str) -> set[str]:
    """The top modules of this crate that a line names: `crate::store::…`, `use crate::{error::…, store::…};`."""
    found = set(re.findall(r"\bcrate::(\w+)", code))
    for group in re.findall(r"\bcrate::\{(.*)\}", code):
        found.update(re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\{[^{}]*\}", "", group)))
    return found


def test_rust_modules_import_downwards_only() -> None:
    wrong = [
        f"{relative(path)}:{number}: `{module}` uses `{used}`"
        for path in rust_files()
        if (module := rust_module(path)) in MAY_USE
        for number, code in rust_code(path)
        for used in used_modules(code)
        if used in MAY_USE and used != module and used not in MAY_USE[module]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_import_rule_sees_what_it_should() -> None:
    assert used_modules("use crate::store::Store;") == {"store"}
    assert used_modules("use crate::{error::{Error, Kind}, zarr::Region};") >= {"error", "zarr"}
    assert "netcdf" not in used_modules("use netcdf_reader::NcFile;")


def test_every_rust_module_has_a_place_in_the_layers() -> None:
    modules = {rust_module(path) for path in rust_files()} - {"lib"}
    assert modules <= set(MAY_USE), f"say in test_house.py what may be used by {sorted(modules - set(MAY_USE))}"


def test_one_dependency_one_door() -> None:
    wrong = [
        f"{relative(path)}:{number}: `{crate}` belongs to `{DOORS[crate]}`"
        for path in rust_files()
        for number, code in rust_code(path)
        for crate in re.findall(r"(?<![\w:])(\w+)::", code)
        if crate in DOORS
        and DOORS[crate] != rust_module(path)
        and not re.search(rf"\b(crate|super|self)::{crate}", code)
    ]
    assert not wrong, "\n".join(wrong)


def test_pure_plans_use_no_store() -> None:
    plans = [path for path in rust_files() if path.stem == "plan" and rust_module(path) == "zarr"]
    wrong = [relative(path) for path in plans for _, code in rust_code(path) if "crate::store" in code]
    assert not wrong, f"a plan is a pure function: {wrong}"


def python_module(path: Path) -> str:
    """The module, or the package that it is a part of."""
    return path.relative_to(PYTHON).parts[0].removesuffix(".py")


def python_imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, full name and "at the top?" of each import; what only a type checker sees does not count."""
    tree = ast.parse(path.read_text())
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside.update(ast.walk(node))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                for part in ast.walk(child):
                    if isinstance(part, ast.Import | ast.ImportFrom):
                        part.names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name, node not in inside
        elif isinstance(node, ast.ImportFrom) and node.names:
            module = "." * node.level + (node.module or "")
            if module == "regraft":
                for name in node.names:
                    yield node.lineno, f"regraft.{name.name}", node not in inside
            else:
                yield node.lineno, module, node not in inside


def rank(module: str) -> int:
    return RANKS.get(module.split("_")[0] or module, RANKS.get(module, MIDDLE))


def test_python_modules_import_downwards_only() -> None:
    wrong = []
    for path in python_files():
        module = python_module(path)
        for number, name, _ in python_imports(path):
            if not name.startswith("regraft."):
                continue
            used = name.split(".")[1]
            family = used.split("_")[0] == module.split("_")[0]
            if rank(used) > rank(module) and module != "__init__" and not family:
                wrong.append(f"{relative(path)}:{number}: `{module}` imports `{used}`")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("package", "modules"),
    [
        ("prefect", {"flows"}),
        ("duckdb", {"expressions"}),
        ("aws_lambda_powertools", {"aws"}),
        ("boto3", {"sqs", "aws"}),
        ("botocore", {"sqs", "aws"}),
    ],
)
def test_one_door_in_python(package: str, modules: set[str]) -> None:
    wrong = [
        f"{relative(path)}:{number}"
        for path in python_files()
        for number, name, _ in python_imports(path)
        if name.split(".")[0] == package and python_module(path) not in modules
    ]
    assert not wrong, f"{package} outside {sorted(modules)}: {wrong}"


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    wrong = [
        f"{relative(path)}:{number}: `{name}`"
        for path in python_files()
        for number, name, at_top in python_imports(path)
        if at_top and name.split(".")[0] in HEAVY - LATE.get(python_module(path), set())
    ]
    assert not wrong, "\n".join(wrong)


def test_import_regraft_loads_nothing_heavy() -> None:
    script = "import sys, regraft; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("suffix", [".rs", ".py"])
def test_no_file_is_much_longer_than_400_lines(suffix: str) -> None:
    files = rust_files() if suffix == ".rs" else python_files()
    # Unit tests stand in the file of what they test, and do not count.
    lengths = {
        relative(path): len(path.read_text().split("#[cfg(test)]\nmod tests {")[0].splitlines()) for path in files
    }
    long = {name: length for name, length in lengths.items() if length > LONGEST}
    assert not long, f"split by concept: {long}"


def test_file_names_say_what_is_inside() -> None:
    folders = [RUST, PYTHON, CHECKOUT / "tests"]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".rs", ".py"}]
    wrong = [relative(path) for path in files if {*path.stem.split("_"), path.parent.name} & EMPTY_NAMES]
    assert not wrong, f"names that say nothing: {wrong}"


def test_rust_names_are_words() -> None:
    pattern = re.compile(rf"\b(?:let(?: mut)?|for|fn) ({SHORT_NAMES})\b")
    wrong = [
        f"{relative(path)}:{number}: `{found[1]}`"
        for path in rust_files()
        for number, code in rust_code(path)
        if (found := pattern.search(code))
    ]
    assert not wrong, "\n".join(wrong)


def test_python_names_are_words() -> None:
    pattern = re.compile(rf"^(?:{SHORT_NAMES})$")
    wrong = [
        f"{relative(path)}:{node.lineno}: `{node.id}`"
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and pattern.match(node.id)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is_for() -> None:
    silent = [relative(path) for path in python_files() if not ast.get_docstring(ast.parse(path.read_text()))]
    silent += [
        relative(path)
        for path in rust_files()
        if path.stem != "tests" and not path.read_text().lstrip().startswith("//!")
    ]
    assert not silent, f"without a word at the top: {silent}"


def test_nothing_names_the_machine_it_was_written_on() -> None:
    folders = ["src", "python", "tests", "notebooks", ".ci"]
    texts = [path for folder in folders for path in (CHECKOUT / folder).rglob("*") if path.is_file()]
    texts += [path for path in CHECKOUT.iterdir() if path.is_file()]
    readable = {".rs", ".py", ".pyi", ".toml", ".md", ".yaml", ".yml", ".sh", ".ipynb", ".json", ".lock", ""}
    machine = re.compile("|".join(["/" + "root/", "/" + "home/[a-z]", "/" + "work/", "/" + "Users/"]))
    wrong = [
        f"{relative(path)}: `{found[0]}`"
        for path in texts
        if path.suffix in readable and path.name != ".git" and "__pycache__" not in path.parts
        if (found := machine.search(path.read_text(errors="replace")))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_three_parts_have_one_licence() -> None:
    """Cargo.toml, pyproject.toml and the README name the same licence."""
    for name in ("Cargo.toml", "pyproject.toml"):
        assert 'license = "Apache-2.0"' in (CHECKOUT / name).read_text()
    assert "Apache-2.0" in (CHECKOUT / "README.md").read_text()
