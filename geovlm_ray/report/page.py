"""Shared parts of the self-contained HTML pages: layout, style and embedded images."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

STYLE = """
:root { color-scheme: light; --ink: #1e293b; --soft: #64748b; --line: #e2e8f0; --card: #f8fafc; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { border-bottom: 1px solid var(--line); padding-bottom: .3rem; margin-top: 2.5rem; }
small, .note { color: var(--soft); font-weight: normal; }
table { border-collapse: collapse; }
td, th { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: left; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(360px, 1fr)); gap: 1rem; }
.charts svg { width: 100%; height: auto; }
code { display: block; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; margin-top: .5rem; }
pre { background: var(--card); padding: 1rem; overflow: auto; font-size: 13px; }
.key { display: inline-block; width: .9em; height: .9em; border: 2px solid; vertical-align: -1px; }
"""


def page(title: str, body: str, style: str = "") -> str:
    """A self-contained HTML page; ``title`` is plain text, ``body`` HTML, ``style`` additional CSS."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}{style}</style></head>'
        f"<body>{body}</body></html>"
    )


def data_uri(image: Image.Image) -> str:
    """An image as a JPEG data URI."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The image, resized so that its longer side has ``side`` pixels."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)
