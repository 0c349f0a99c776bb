"""What a stage script really imports, read from the code."""

import ast
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]


def imported_files(script: Path) -> set[str]:
    """The files of the library that `script` imports, directly or through others, imports inside functions included."""
    graph = grimp.build_graph("yoyak", cache_dir=None)
    direct = {name for node in ast.walk(ast.parse(script.read_text())) for name in _modules(node, graph)}
    reached = direct.union(*(graph.find_upstream_modules(module) for module in direct))
    # Importing yoyak.training.run runs yoyak/training/__init__.py and yoyak/__init__.py too.
    packages = {parent for module in reached for parent in _parents(module)}
    return {_path(module) for module in reached | packages}


def _modules(node: ast.AST, graph: grimp.ImportGraph) -> set[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    else:
        return set()
    return {name for name in names if name in graph.modules and name != "yoyak"}


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _path(module: str) -> str:
    base = Path("src", *module.split("."))
    return str(base / "__init__.py" if (ROOT / base).is_dir() else base.with_suffix(".py"))
