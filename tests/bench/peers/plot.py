"""The plot beside the tables: 100 documents, one client, a bar for each subject. An SVG that needs nothing."""

from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 760, 250, 70
BAR, GAP, HEAD = 16, 6, 34
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .head { font-weight: 600 }
  .small { font-size: 12px }
  .ours { fill: #0969da }
  .other { fill: #afb8c1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .ours { fill: #4493f8 }
    .other { fill: #57606a }
  }
"""


def draw(findings):
    """One panel for each kind of texts, scaled to its longest bar."""
    shapes, y = [], 10
    for kind in ("titles", "passages"):
        cell = (kind, 100, 1)
        measured = [(subject, findings.milliseconds(cell, subject.name)) for subject in findings.subjects]
        measured = [(subject, value) for subject, value in measured if value is not None]
        if not measured:
            continue
        longest = max(value for _, value in measured)
        shapes.append(text(LEFT, y + 14, f"100 {kind}, one client: ms, less is better", "head"))
        y += HEAD
        for precision in ("fp32", "int8"):
            for subject, value in sorted(
                (pair for pair in measured if pair[0].precision == precision), key=lambda pair: pair[1]
            ):
                width = max(1.0, (WIDTH - LEFT - RIGHT) * value / longest)
                color = "ours" if subject.name.startswith("rerankd") else "other"
                shapes.append(text(LEFT - 8, y + 13, f"{subject.title}, {precision}", "small", "end"))
                shapes.append(f'<rect class="{color}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>')
                shapes.append(text(LEFT + width + 6, y + 13, f"{value:.0f}", "small"))
                y += BAR + GAP
            y += GAP
        y += GAP
    title = "Time for 100 documents: rerankd and other rerankers"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n" + "\n".join(shapes) + "\n</svg>\n"
    )


def text(x, y, words, kind, anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'
