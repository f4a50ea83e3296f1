"""Assembles and renders the site: ``make docs``, which is ``python -m website.build``; it is in ``build/site/html``.

Warnings are errors, links to pages and headings among them. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from website import methods, reference
from website.pages import PARTS, ROOT, moved, places

__all__ = ["assemble", "main"]

HOME = """\
# equipoise

**Train one PyTorch model on many tasks, and keep the tasks in balance.** You bring a model and several losses; equipoise puts a
better update in place of their sum, at about the price of plain training, in the trainer that you have, and helps you to find
out which method serves your problem.

```python
loss = eq.balanced_loss(losses, balancer, proxy="last")  # was: sum(losses)
loss.backward()
```

```console
pip install '.[study]'                    # from a clone
equipoise study digits                    # compare methods on handwritten digits
equipoise diagnose my_problem.py:problem  # what do your tasks do to each other?
```

![Quality over cost: Δm of six methods over the time of training, exact and by proxy](pictures/price.png)

How this picture was measured, and where proxies lose: [the price](price.md).
"""


def assemble(folder: Path, *, drawn: bool = True) -> None:
    """Writes the site's source into a folder.

    Args:
        folder: emptied first, but for pictures that are drawn already.
        drawn: with the pictures of the methods.
    """
    where = places()
    for old in folder.glob("*"):
        if old.name != "methods":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    files: set[str] = set()
    for page, place in where.items():
        if page == "README.md":
            continue
        text, linked = moved((ROOT / page).read_text(encoding="utf-8"), page, where)
        files |= linked
        put(folder / place, text)
    for file in files:
        target = folder / file.replace("docs/", "", 1)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, target)
    methods.write(folder, drawn=drawn)
    reference.write(folder)
    put(folder / "index.md", HOME + "".join(_part(part.title, part.promise, part.pages, where) for part in PARTS))


def _part(title: str, promise: str, pages: tuple[str, ...], where: dict[str, str]) -> str:
    names = "\n".join((where[page] if not page.startswith("=") else page[1:]).removesuffix(".md") for page in pages)
    links = "\n".join(f"- [](<{name}.md>)" for name in names.splitlines())
    return f"\n## {title}\n\n{promise}\n\n{links}\n\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{names}\n```\n"


def put(file: Path, text: str) -> None:
    """Writes a page, with the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def main() -> None:
    """Builds the site; its exit status is Sphinx's."""
    parser = argparse.ArgumentParser(prog="python -m website.build")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--no-pictures", action="store_true", help="leave those of the methods out, for a quick look")
    options = parser.parse_args()
    from sphinx.cmd.build import main as sphinx

    source = options.folder / "source"
    assemble(source, drawn=not options.no_pictures)
    status = sphinx(
        ["-W", "--keep-going", "-q", "-b", "html", "-c", str(ROOT / "website"), str(source), str(options.folder / "html")]
    )
    if not status:
        print(f"the site: {options.folder / 'html' / 'index.html'}")
    sys.exit(status)


if __name__ == "__main__":
    main()
