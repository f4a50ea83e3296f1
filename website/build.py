"""Assembles and renders the site: ``make docs``, which is ``python -m website.build``; it is in ``build/site/html``.

Warnings are errors, links to pages and headings among them. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from website import evidence, gallery, methods, reference
from website.pages import PARTS, ROOT, copied, moved, places, put

__all__ = ["assemble", "main"]

HOME = """\
# equipoise

equipoise trains one PyTorch model on many tasks and keeps the tasks in balance: it puts a better update in place of the sum
of the losses, in the trainer that you have, at about the price of plain training. And it helps you to find out which method
serves your problem.

```python
loss = eq.balanced_loss(losses, balancer, proxy="last")  # was: loss = sum(losses.values())
loss.backward()
```

![Quality over cost on two problems: six balancing methods, exact and by proxy, beside the plain sum](pictures/price.png)

Lower is better, left is cheaper: on digits, balancing takes the mean drop against single-task training from 56 % to about
1 %. How that was measured, and where it fails: [the price](price.md), [the evidence](evidence.md).

```console
pip install '.[study]'                    # from a clone
equipoise study digits                    # compare methods on handwritten digits
equipoise diagnose my_problem.py:problem  # what do your tasks do to each other?
```

New here? [First steps](first-steps.md), [the ideas in pictures](ideas.md), [the gallery](gallery/index.md), and [the decision
tree](choosing-a-method.md#the-decision-tree).
"""


def assemble(folder: Path, *, drawn: bool = True) -> None:
    """Writes the site's source into a folder.

    Args:
        folder: what it has that is no part of the site goes; what has not changed stays as it is.
        drawn: with the pictures of the methods and the outputs of the gallery.
    """
    where = places()
    written: set[Path] = set()
    files: set[str] = set()
    for page, place in where.items():
        if page == "README.md":
            continue
        text, linked = moved((ROOT / page).read_text(encoding="utf-8"), page, where)
        files |= linked
        written.add(put(folder / place, text))
    # The evidence and the home page show pictures of their own accord.
    files |= {"docs/pictures/price.png", "docs/data/methods-on-qm9.csv"}
    written |= {copied(ROOT / file, folder / file.replace("docs/", "", 1)) for file in files}
    written.update(methods.write(folder, drawn=drawn))
    written.update(reference.write(folder))
    written.add(evidence.write(folder, where))
    written.update(gallery.write(folder, folder.parent / "gallery", executed=drawn))
    written.add(put(folder / "index.md", HOME + "".join(_part(part.title, part.promise, part.pages, where) for part in PARTS)))
    for old in set(folder.rglob("*")) - written:
        if old.is_file() and old.parent != folder / "methods" / "pictures":
            old.unlink()


def _part(title: str, promise: str, pages: tuple[str, ...], where: dict[str, str]) -> str:
    names = "\n".join((where[page] if not page.startswith("=") else page[1:]).removesuffix(".md") for page in pages)
    links = "\n".join(f"- [](<{name}.md>)" for name in names.splitlines())
    return f"\n## {title}\n\n{promise}\n\n{links}\n\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{names}\n```\n"


def main() -> None:
    """Builds the site; its exit status is Sphinx's."""
    parser = argparse.ArgumentParser(prog="python -m website.build")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--no-pictures", action="store_true", help="none, and do not run the gallery, for a quick look")
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
