"""Elements of HTML pages. Each page is one self-contained file without scripts."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.files import replace_text

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2430; background: #fff; max-width: 66rem; margin: 2.5rem auto;
  padding: 0 1.25rem 3rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .7rem; }
h3 { font-size: .9rem; font-weight: 600; color: #394250; margin: 0 0 .2rem; }
p, figcaption { color: #556070; margin: .3rem 0; } figcaption { font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1.1rem .3rem 0; text-align: right; border-bottom: 1px solid #e3e7ec; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
.grids { display: flex; flex-wrap: wrap; gap: 1.25rem; } figure { margin: 0; }
.grids figure { flex: 1 1 13rem; max-width: 28rem; } img { width: 100%; display: block; }
.pixels img { image-rendering: pixelated; width: auto; max-width: 100%; } .grids .pixels img { width: 100%; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1.4rem 1.6rem; }
.plots .wide { grid-column: 1 / -1; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; margin: 1.1rem 0 0; }
.facts div { min-width: 6rem; } .facts b { display: block; font-size: 1.25rem; font-weight: 600; }
.facts span { color: #556070; font-size: .85rem; }
.progress { height: .45rem; background: #e8ebef; border-radius: .25rem; margin: .9rem 0 0; overflow: hidden; }
.progress div { height: 100%; background: #1f5fbf; }
.swatch { display: inline-block; width: .75rem; height: .75rem; border-radius: .2rem; margin-right: .45rem; }
pre { background: #f4f6f8; padding: 1rem; overflow-x: auto; font-size: .85rem; } summary { cursor: pointer; color: #394250; }
"""


def write(path: Path, title: str, sections: Iterable[str]) -> None:
    """Writes a page atomically.

    Raises:
        OSError: the file cannot be written; the old content is unchanged.
    """
    content = "\n".join(sections)
    replace_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{content}\n</body></html>\n",
    )


def section(title: str, content: str) -> str:
    """Returns a section with a heading (text) and content (HTML); an empty string without content."""
    return f"<section><h2>{html.escape(title)}</h2>\n{content}</section>" if content else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of texts."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def picture(path: Path, caption: str) -> str:
    """Returns a PNG file, embedded in the page, with a caption."""
    source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return f'<figure class="pixels">{_image(source, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>'


def grids(figures: Iterable[str]) -> str:
    """Returns pictures side by side; an empty string without pictures."""
    joined = "".join(figures)
    return f'<div class="grids">{joined}</div>' if joined else ""


def plot(title: str, svg: str, *, wide: bool = False) -> str:
    """Returns a plot (SVG text) with its title, for `plots`."""
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return f'<figure class="{"wide" if wide else ""}"><h3>{html.escape(title)}</h3>{_image(source, title)}</figure>'


def plots(figures: Iterable[str]) -> str:
    """Returns plots in as many columns as the width of the page allows."""
    return f'<div class="plots">{"".join(figures)}</div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Returns a row of (name, value) pairs."""
    return (
        '<div class="facts">'
        + "".join(f"<div><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>" for name, value in pairs)
        + "</div>"
    )


def progress(share: float) -> str:
    """Returns a progress bar, filled to the fraction `share` in [0, 1]."""
    return f'<div class="progress"><div style="width:{100 * share:.1f}%"></div></div>'


def _image(source: str, description: str) -> str:
    return f'<img alt="{html.escape(description)}" src="{source}">'
