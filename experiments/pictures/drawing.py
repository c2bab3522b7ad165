"""How every picture is drawn, and how one becomes part of a page."""

import contextlib
import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

# Of arms, after Tol's muted scheme, which the colour-blind can tell apart, on light and
# on dark; without the blue and the orange that decisions have.
COLOURS = ("#2E8B57", "#AA4499", "#8A8A1F", "#CC6677", "#6A5ACD")

# Inches: no more than a phone can show without making letters too small.
WIDTH = 4.4

# They stand for what the page chooses: its ink, its lines and its paper.
INK, LINE, PAPER = "#010203", "#040506", "#070809"
_PAGE_COLOURS = {INK: "currentColor", LINE: "var(--line)", PAPER: "var(--paper)"}
# What they are in a picture that is not part of a page.
_OWN_COLOURS = {"currentColor": "#333", "var(--line)": "#ddd", "var(--paper)": "#fff"}
_NOT_OURS = ("font-family", "stroke-linecap", "stroke-linejoin", "stroke-dashoffset")
STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",  # the widest: no other font is cut off
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",  # text remains text, and glyphs are the reader's own
    "text.color": INK,
    "text.parse_math": False,  # a $ in a name is a $
    "xtick.bottom": False,  # the grid says where
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
    "ytick.left": False,
}


def svg(name: str, label: str, draw: Callable[..., Any], *args: Any, **kw: Any) -> str:
    """Draws a picture for a page.

    Args:
        name: tells its parts from those of the page's other pictures.
        label: what it shows, for those who cannot see it.
        draw: a function that returns a figure.
        *args: its arguments.
        **kw: its keywords.

    Returns:
        An `<svg>` element; the same arguments give the same text.
    """
    file = io.StringIO()
    with drawing(STYLE | {"svg.hashsalt": name}), no_glyph_warnings():
        figure = draw(*args, **kw)
        width = figure.get_figwidth() * 96
        figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    _simplify(root, name)
    # Narrow screens shrink it, but no further than it can be read.
    usual = 1.15 * width if figure.get_figwidth() == WIDTH else width
    style = f"width:{usual:.0f}px;min-width:{min(width, 0.84 * 96 * WIDTH):.0f}px"
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "style": style,
        "fill": "currentColor",
        "role": "img",
        "aria-label": clean(label),
    }
    return ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")


def svg_alone(label: str, draw: Callable[..., Any], *args: Any) -> str:
    """Draws a picture that stands by itself, on white paper.

    Args:
        label: see `svg`.
        draw: a function that returns a figure.
        *args: its arguments.

    Returns:
        An SVG file, which says how large it is.
    """
    drawn = svg("f", label, draw, *args)
    for name, colour in _OWN_COLOURS.items():
        drawn = drawn.replace(name, colour)
    paper = '<rect width="100%" height="100%" fill="#fff"/>'
    drawn = drawn.replace(">", f">{paper}", 1)
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)[0])
    pixels = int(re.findall(r"width:(\d+)px", drawn)[0])
    size = f'width="{pixels}" height="{pixels * height / width:.0f}"'
    drawn = re.sub('style="[^"]*"', f'{size} font-family="sans-serif"', drawn, count=1)
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


@contextlib.contextmanager
def drawing(settings: dict[str, Any]) -> Iterator[None]:
    """Sets Matplotlib's defaults and these settings, whatever a user's own are."""
    import matplotlib.style

    with matplotlib.style.context(["default", settings]):
        yield


@contextlib.contextmanager
def no_glyph_warnings() -> Iterator[None]:
    """Keeps silent about letters that our font lacks."""
    with warnings.catch_warnings():
        # The reader's fonts have what DejaVu lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _simplify(root: ElementTree.Element, name: str) -> None:
    """Makes SVG fit into a page: small, without styles, and without ids that clash."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', text)
    ids = {each: f"{name}-{index}" for index, each in enumerate(dict.fromkeys(used))}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        attributes = {}
        for key, value in element.attrib.items():
            key = key.rpartition("}")[2]
            if key == "id":
                if value not in ids:
                    continue
                value = ids[value]
            elif key == "href" and value.startswith("#"):
                value = f"#{ids[value[1:]]}"
            elif key in ("d", "x", "y"):
                value = re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.1f}", value)
                value = re.sub(r"\.0\b", "", " ".join(value.split()))
                value = re.sub(" ?([A-Za-z]) ?", r"\1", value)
            elif key == "transform" and value.startswith("rotate(-0 "):
                continue
            elif key in ("style", "clip-path", "fill", "stroke"):
                value = re.sub(r"#([^)]+)\)", lambda at: f"#{ids[at[1]]})", value)
                for ours, theirs in _PAGE_COLOURS.items():
                    value = value.replace(ours, theirs)
                value = _shorten_style(value)
            attributes[key] = value
        style = attributes.get("style", "")
        if "var(--line)" in style:  # a grid ends where its axes do
            attributes.pop("clip-path", None)
        if element.tag == "text":
            attributes["style"] = style.replace(";fill:currentColor", "")
        element.attrib = attributes
        if element.tag != "text":
            element.text = (element.text or "").strip() or None
    _flatten(root)
    _join_grids(root)


def _join_grids(root: ElementTree.Element) -> None:
    """Makes one path of all lines of a grid."""
    grids: dict[str, ElementTree.Element] = {}
    for element in list(root):
        style = element.get("style", "")
        if element.tag == "path" and "var(--line)" in style:
            grid = grids.setdefault(style, element)
            if grid is not element:
                grid.set("d", grid.get("d", "") + element.get("d", ""))
                root.remove(element)


def _shorten_style(style: str) -> str:
    """Leaves out of a style what the page decides, and what is so anyway."""
    kept = []
    for each in style.split(";"):
        key, _, value = map(str.strip, each.partition(":"))
        if key == "font":  # of which only the size is ours
            key, value = "font-size", value.split()[0]
        if key not in _NOT_OURS and (key, value) != ("text-anchor", "start"):
            kept.append(f"{key}:{value}" if value else key)
    return ";".join(kept)


def _flatten(parent: ElementTree.Element) -> None:
    """Takes away groups that say nothing, and what leaves no mark."""
    children: list[ElementTree.Element] = []
    for child in parent:
        _flatten(child)
        if child.tag == "g" and not child.attrib:
            children += child
        elif not (
            child.tag in ("metadata", "style")
            or (child.tag in ("defs", "g") and not len(child))
            or (child.tag == "path" and child.get("style") == "fill:none")
        ):
            children.append(child)
    parent[:] = children


def number(value: float, digits: int, signed: bool = False) -> str:
    """Writes a number, with a minus rather than a hyphen."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def shorten(text: str, length: int = 30) -> str:
    """Cuts a text to a length, and marks what no font shows and XML refuses."""
    text = clean(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def wrap(text: str, length: int) -> str:
    """Breaks a title into two lines of a length at most, and cuts what is left."""
    lines = textwrap.wrap(clean(text), length) or [""]
    return "\n".join([lines[0], shorten(" ".join(lines[1:]), length)]).rstrip()


def add_legend(figure: Any, *args: Any) -> None:
    """Adds names above a picture, in as many columns as there is room for."""
    labels = args[1] if args else figure.axes[0].get_legend_handles_labels()[1]
    longest = max(map(len, labels), default=0)
    figure.legend(
        *args,
        loc="outside upper left",
        ncols=3 if longest <= 14 else 2 if longest <= 25 else 1,
        fontsize=8,
    )


def clean(text: str) -> str:
    """Marks what no font shows and XML refuses."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def make_figure(width: float, height: float, layout: Any = None) -> Any:
    """Makes a figure of a width and a height in inches."""
    import matplotlib.figure

    # Not pyplot, whose figures are global state that must be closed.
    return matplotlib.figure.Figure(figsize=(width, height), layout=layout)


def hide_frame(axes: Any) -> None:
    """Hides the frame and the ticks of axes."""
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def spread(axes: Any, values: Sequence[float | None]) -> None:
    """Centres an axis on values that are all equal."""
    known = [value for value in values if value is not None]
    if not known or max(known) - min(known) < 1e-9:
        middle = known[0] if known else 0.0
        axes.set_xlim(middle - 1, middle + 1)
