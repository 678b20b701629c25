"""A program as a picture, drawn from what it says of itself: an SVG string, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import hypot
from textwrap import wrap

from ppl_vae.diagnose import Diagnosis
from ppl_vae.programs.describe import Line

Point = tuple[float, float]

INK, GUIDE, TERM, SHADE = "#222222", "#0072B2", "#D55E00", "#cfd8dc"
RADIUS = 25.0
LINES = 4  # of words beside an arrow
STEP = 96.0  # between nodes of a row
SIDE = 186.0  # width of the words on each side of the nodes
LATENT, OBSERVED = 84.0, 226.0  # heights of the two rows, from the plate's top


def diagram(program: Diagnosis | Iterable[Line], objective: str | None = None) -> str:
    """Draw a program: plate, latents (open), observations (shaded), and what training minimises.

    Solid arrows are the model p, dashed ones the guide q. Under an adversary a critic that compares
    z ~ q(z) with z ~ p(z) stands where the KL stands under an ELBO.

    Args:
        program: What `diagnose` found, or its `lines`.
        objective: "ELBO", "Adversarial" or another objective's name; None draws the program alone.

    Returns:
        SVG text that needs no other file, and holds no ids: several may stand in one page.

    Raises:
        ValueError: If there is no prior or no likelihood among the lines.

    Example:
        >>> lines = [
        ...     Line("prior", "z", (), "StandardNormal(2)"),
        ...     Line("likelihood", "x", ("z",), "Bernoulli((784,))"),
        ...     Line("guide", "z", ("x",), "Normal((2,))"),
        ... ]
        >>> diagram(lines, "ELBO")[:4], "critic" in diagram(lines, "Adversarial")
        ('<svg', True)
    """
    shared = program.shared if isinstance(program, Diagnosis) else ()
    lines = tuple(program.lines if isinstance(program, Diagnosis) else program)
    parts = {r: [w for w in lines if w.role == r] for r in ("prior", "likelihood", "guide")}
    if not parts["prior"] or not parts["likelihood"]:
        raise ValueError(
            f"Got the lines {[(w.role, w.site) for w in lines]}; expected a prior and a likelihood "
            "at least. Try diagnose(program, x).lines."
        )
    return _draw(parts, shared, objective)


def _draw(parts: dict[str, list[Line]], shared: Sequence[str], objective: str | None) -> str:
    local = [w.site for w in parts["prior"] if w.site not in shared]
    outer = [w.site for w in parts["prior"] if w.site in shared]
    data = [w.site for w in parts["likelihood"]]
    core = max(len(local) + len(outer), len(data)) * STEP
    top = 14.0 + (72.0 if outer else 0.0)
    plate_width = core + 2 * SIDE
    centre = 16 + plate_width / 2
    room = 17.0 * max(0, len(local) - 1)  # for the words of more than one prior
    plate = (16.0, top, plate_width, OBSERVED + 62 + room)
    # What all data share stands above the plate, in columns of its own.
    latents = (*local, *outer)
    at = dict(zip(latents, _row(latents, centre, top + room + LATENT), strict=True))
    at |= {s: (at[s][0], 44.0) for s in outer}
    at |= dict(zip(data, _row(data, centre, top + room + OBSERVED), strict=True))
    terms = [] if objective is None else _words_of_terms(objective, parts, local or outer)
    term_width = max(194.0, 7.4 * max((len(words) for words, *_ in terms), default=0) + 24)
    edge = plate[0] + plate_width
    width = edge + 16 + (40 + term_width if terms else 0)
    for w in parts["prior"]:
        if w.site in outer:
            width = max(width, at[w.site][0] + RADIUS + 24 + 7.4 * len(f"{w.site} ~ {w.family}"))
    height = top + plate[3] + 14
    body = [
        f'<rect x="{plate[0]}" y="{plate[1]}" width="{plate[2]}" height="{plate[3]}" rx="10" '
        f'fill="none" stroke="{INK}" stroke-width="1.2"/>',
        _text(plate[0] + plate[2] - 12, plate[1] + plate[3] - 10, "for every datum", anchor="end"),
    ]
    for w in parts["likelihood"]:
        body += [_arrow(at[g], at[w.site], INK, dashed=False) for g in w.given if g in at]
    for w in parts["guide"]:
        body += [_arrow(at[g], at[w.site], GUIDE, dashed=True) for g in w.given if g in at]
    for site, point in at.items():
        body.append(_node(point, site, SHADE if site in data else "white"))
    body += _words(parts, at, plate, outer)
    if terms:
        body += _terms(terms, at[(local or outer)[-1]], at[data[-1]], edge, term_width)
    said = "; ".join(
        f"{w.site}{' given ' + ', '.join(w.given) if w.given else ''} from {w.family} ({w.role})"
        for role in parts.values()
        for w in role
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="12.5">'
        f"<title>{escape(said)}</title>"
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>' + "".join(body) + "</svg>"
    )


def _words(
    parts: dict[str, list[Line]],
    at: dict[str, Point],
    plate: tuple[float, float, float, float],
    outer: Sequence[str],
) -> list[str]:
    """Say what is drawn from what, beside the arrows."""
    x, top, width, _ = plate
    own = [w for w in parts["prior"] if w.site not in outer]
    centre = sum(at[w.site][0] for w in own) / max(1, len(own))
    top += 17.0 * max(0, len(own) - 1)
    middle = top + (LATENT + OBSERVED) / 2
    body = []
    for k, w in enumerate(own):
        height = top + LATENT - RADIUS - 12 - 17 * (len(own) - 1 - k)
        body.append(_text(centre, height, f"{w.site} ~ {w.family}", anchor="middle", halo=True))
    for w in parts["prior"]:
        if w.site in outer:
            px, py = at[w.site]
            body.append(_text(px + RADIUS + 8, py + 4, f"{w.site} ~ {w.family}"))
    body += _column(parts["likelihood"], "p", x + width - SIDE + 14, middle, "start", INK)
    body += _column(parts["guide"], "q", x + SIDE - 14, middle, "end", GUIDE)
    return body


def _column(
    lines: list[Line], letter: str, x: float, middle: float, anchor: str, colour: str
) -> list[str]:
    rows: list[tuple[str, bool]] = []
    for w in lines:
        rows.append((f"{letter}({w.site}|{', '.join(w.given)})", True))
        pieces = wrap(w.family, 23)
        if len(pieces) > LINES:  # a table: the lines above the diagram have it whole
            pieces = [*pieces[: LINES - 1], f"{pieces[LINES - 1]} …"]
        rows += [(piece, False) for piece in pieces]
    start = middle - 16 * (len(rows) - 1) / 2 + 4
    return [
        _text(x, start + 16 * k, text, anchor=anchor, colour=colour, bold=bold)
        for k, (text, bold) in enumerate(rows)
    ]


def _words_of_terms(
    objective: str, parts: dict[str, list[Line]], latents: Sequence[str]
) -> list[tuple[str, str, bool]]:
    """Give what training weighs: text, colour, bold; the last row is the reconstruction."""
    z, x = ", ".join(latents), ", ".join(w.site for w in parts["likelihood"])
    adversary = "adversarial" in objective.lower()
    aggregate = adversary or objective == "MMD"
    point = any(w.family.startswith("Delta") for w in parts["guide"])
    if adversary:
        title = "critic: which is which?"
    elif objective == "MMD":
        title = "− MMD²(q, p)"
    elif "elbo" in objective.lower():
        title = "log p(z): a point, no KL" if point else "− KL(q ‖ p)"
    else:
        title = objective
    return [
        (title, TERM, True),
        (f"{z} ~ q({z})" if aggregate else f"{z} ~ q({z}|{x})", GUIDE, False),
        (f"{z} ~ p({z})", INK, False),
        (f"E[log p({x}|{z})], {z} ~ q", INK, True),
    ]


def _terms(
    terms: list[tuple[str, str, bool]], z: Point, x: Point, edge: float, width: float
) -> list[str]:
    """Draw the objective's two terms right of the plate, at the height of their variables."""
    left = edge + 40
    heights = (z[1] - 16, z[1] + 5, z[1] + 25, x[1] + 4)
    return [
        _wire((z[0] + RADIUS, z[1]), (left, z[1]), GUIDE, "6 4"),
        _wire((x[0] + RADIUS, x[1]), (left, x[1]), INK, ""),
        f'<rect x="{left:g}" y="{z[1] - 36:g}" width="{width:g}" height="72" rx="8" '
        f'fill="#fff4ec" stroke="{TERM}" stroke-width="1.6"/>',
        f'<rect x="{left:g}" y="{x[1] - 20:g}" width="{width:g}" height="40" rx="8" '
        f'fill="#f4f6f7" stroke="{INK}" stroke-width="1.2"/>',
        *(
            _text(left + 12, y, words, colour=colour, bold=bold)
            for y, (words, colour, bold) in zip(heights, terms, strict=True)
        ),
        _text(left + width / 2, (z[1] + x[1]) / 2 + 12, "+", anchor="middle", bold=True),
    ]


def _row(sites: Sequence[str], centre: float, height: float) -> list[Point]:
    return [(centre + (k - (len(sites) - 1) / 2) * STEP, height) for k in range(len(sites))]


def _node(at: Point, site: str, fill: str) -> str:
    shown = site if len(site) <= 7 else site[:6] + "…"
    size = 16.0 if len(site) < 3 else 12.0
    return (
        f'<circle cx="{at[0]:g}" cy="{at[1]:g}" r="{RADIUS:g}" fill="{fill}" stroke="{INK}" '
        f'stroke-width="1.6"><title>{escape(site)}</title></circle>'
        + _text(at[0], at[1] + 4.5, shown, anchor="middle", italic=True, size=size)
    )


def _arrow(start: Point, end: Point, colour: str, *, dashed: bool) -> str:
    """Join two nodes, a little aside of their axis: up and down arrows run side by side."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = hypot(dx, dy)
    ux, uy = dx / length, dy / length
    # The model's arrow, pointing down, is moved to the right of the axis; the guide's to the left.
    sx, sy = uy * 9, -ux * 9
    a = (start[0] + ux * RADIUS + sx, start[1] + uy * RADIUS + sy)
    tip = (end[0] - ux * (RADIUS + 1) + sx, end[1] - uy * (RADIUS + 1) + sy)
    b = (tip[0] - ux * 9, tip[1] - uy * 9)
    wing = [(b[0] - uy * 4.5, b[1] + ux * 4.5), tip, (b[0] + uy * 4.5, b[1] - ux * 4.5)]
    points = " ".join(f"{px:.1f},{py:.1f}" for px, py in wing)
    head = f'<polygon points="{points}" fill="{colour}"/>'
    return _wire(a, b, colour, "6 4" if dashed else "") + head


def _wire(a: Point, b: Point, colour: str, dashes: str) -> str:
    pattern = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{colour}" '
        f'stroke-width="1.6"{pattern}/>'
    )


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    colour: str = INK,
    bold: bool = False,
    italic: bool = False,
    halo: bool = False,
    size: float | None = None,
) -> str:
    style = ' paint-order="stroke" stroke="white" stroke-width="4"' if halo else ""
    style += f' font-size="{size:g}"' if size else ""
    style += ' font-weight="bold"' if bold else ""
    style += ' font-style="italic"' if italic else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{style}>'
        f"{escape(words)}</text>"
    )
