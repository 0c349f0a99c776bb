"""Writes .dvc/plots_page.html, around which `dvc plots show` puts its plots: they are drawn without a network.

    python docs/generate/plots_page.py

DVC's own page loads Vega's three scripts from a server at each look, and stays blank where that is not reached. Here
they stand in the page: the versions that DVC's page names, from npm, by their checksums. It needs a network itself, and
is run when DVC names other versions, which a test sees.
"""

import io
import tarfile
import urllib.request
from base64 import b64encode
from hashlib import sha512
from pathlib import Path

PAGE = Path(__file__).parents[2] / ".dvc/plots_page.html"
SCRIPTS = {
    "vega@5.20.2": "qmH7aD9GGPpssVdxL1xgcdxTbQzyRUeRR16Os385ymvQhiwCYQNA6+eXUPAZDTVLfk0RXu6Jzj6kUE5jQ80EVw==",
    "vega-lite@5.2.0": "Yxcg8MvYfxHcG6BbkaKT0oVCIMIcE19UvqIsEwBmyd/7h2nzW7oRnID81T8UrY7hpDrIr6wa2JADOT2dhGNErw==",
    "vega-embed@6.18.2": "wcDyQPE4J5aiCDc3/suH5RQDvrKkjuLkhzUcbOLwEkNF8/+pp17tS0JghzEvAPNRg+5aG1/N2ydixq8Lk3dOlg==",
}
"""Packages of npm, in the order in which they are loaded, and the SHA-512 of their archives as npm tells it."""
# A phone scrolls a wide plot, not the page.
HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DVC plots</title>
{refresh_tag}
<style>
body { font-family: sans-serif; margin: 1rem; }
body > div { margin-bottom: 1rem; }
@media (max-width: 40rem) { body > div { box-sizing: border-box; max-width: 100%; overflow-x: auto; } }
img { max-width: 100%; height: auto; }
</style>
"""
BODY = """\
</head>
<body>
{plot_divs}
</body>
</html>
"""
PLACEHOLDERS = ("{refresh_tag}", "{plot_divs}", "{scripts}")


def main() -> None:
    PAGE.write_text(HEAD + "".join(_script(*each) for each in SCRIPTS.items()) + BODY, encoding="utf-8")


def _script(package: str, checksum: str) -> str:
    """Its script and, as it asks for, its licence."""
    name, _, version = package.partition("@")
    with urllib.request.urlopen(f"https://registry.npmjs.org/{name}/-/{name}-{version}.tgz") as response:
        archive = response.read()
    if b64encode(sha512(archive).digest()).decode() != checksum:
        raise SystemExit(f"error: {package} of npm is not the package that docs/generate/plots_page.py names")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        licence, script = (_read(files, path) for path in ("LICENSE", f"build/{name}.min.js"))
    script = script.replace(f"//# sourceMappingURL={name}.min.js.map", "").strip()
    # DVC replaces them wherever they are; the other would end the script.
    for forbidden in (*PLACEHOLDERS, "</script", "-->"):
        if forbidden in script + licence:
            raise SystemExit(f"error: {package} has {forbidden}, which cannot stand in the page")
    return f"<!-- {package}\n{licence.strip()}\n-->\n<script>{script}</script>\n"


def _read(files: tarfile.TarFile, path: str) -> str:
    file = files.extractfile(f"package/{path}")
    if file is None:
        raise SystemExit(f"error: no {path} in the archive")
    return file.read().decode()


if __name__ == "__main__":
    main()
