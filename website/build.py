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
# was: loss = sum(losses.values())
loss = eq.balanced_loss(losses, balancer, proxy="last")
loss.backward()
```

![Quality over cost on two problems: six balancing methods, exact and by proxy, beside the plain sum](pictures/price.png)

Lower is better, left is cheaper: on digits, balancing takes the mean drop against single-task training from 56 % to about
1 %. How that was measured, and where it fails: [the price](price.md), [the evidence](evidence.md).

```console
pip install '.[study]'   # from a clone
equipoise study digits   # compares methods
```

New here? [First steps](first-steps.md), [the ideas in pictures](ideas.md), [the gallery](gallery/index.md), and [the decision
tree](choosing-a-method.md#the-decision-tree).
"""


def assemble(folder: Path, *, drawn: bool = True, executed: bool = True) -> None:
    """Writes the site's source into a folder.

    Args:
        folder: what it has that is no part of the site goes; what has not changed stays as it is.
        drawn: draw the methods' pictures.
        executed: run the gallery.
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
    written.update(gallery.write(folder, folder.parent / "gallery", executed=executed))
    written.add(put(folder / "index.md", _home(where)))
    for old in set(folder.rglob("*")) - written:
        if old.is_file() and old.parent != folder / "methods" / "pictures":
            old.unlink()


def _names(pages: tuple[str, ...], where: dict[str, str]) -> list[str]:
    return [(where[page] if not page.startswith("=") else page[1:]).removesuffix(".md") for page in pages]


def _home(where: dict[str, str]) -> str:
    """The home page: what it is, then all parts side by side."""
    parts, trees = [], []
    for part in PARTS:
        names = _names(part.pages, where)
        links = "\n".join(f"- [](<{name}.md>)" for name in names)
        parts.append(f":::{{container}} part\n**{part.title}.** {part.promise}\n\n{links}\n:::")
        listed = "\n".join(names)
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {part.title}\n\n{listed}\n```")
    side_by_side = "\n".join(parts)
    return f"{HOME}\n::::{{container}} parts\n{side_by_side}\n::::\n\n" + "\n\n".join(trees) + "\n"


def main() -> None:
    """Builds the site; its exit status is Sphinx's."""
    parser = argparse.ArgumentParser(prog="python -m website.build")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--no-pictures", action="store_true", help="draw none of the methods, for a quick look")
    parser.add_argument("--no-gallery", action="store_true", help="do not run the gallery, for a quick look")
    options = parser.parse_args()
    from sphinx.cmd.build import main as sphinx

    source = options.folder / "source"
    assemble(source, drawn=not options.no_pictures, executed=not options.no_gallery)
    status = sphinx(
        ["-W", "--keep-going", "-q", "-b", "html", "-c", str(ROOT / "website"), str(source), str(options.folder / "html")]
    )
    if not status:
        print(f"the site: {options.folder / 'html' / 'index.html'}")
    sys.exit(status)


if __name__ == "__main__":
    main()
