"""Pages and documents from the templates of ``templates/``, and the images embedded in them."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from PIL import Image

from geovlm_ray.core.terminal import inert, inert_lines
from geovlm_ray.report.boxes import PREDICTED_COLOUR, TRUE_COLOUR


def escape_markdown(value: object) -> str:
    """A value as text on one line that has no effect in Markdown and HTML."""
    text = "".join(f"\\{c}" if c in "\\|[]*_~" else "'" if c == "`" else c for c in " ".join(str(value).split()))
    return inert(html.escape(text, quote=False), limit=None)


def code(value: object) -> str:
    """A value as a code span of Markdown, on one line."""
    return f"`{inert(' '.join(str(value).split()), limit=None).replace('`', chr(39))}`"


def _inert(value: object) -> object:
    return inert_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_TEMPLATES = Environment(
    loader=PackageLoader("geovlm_ray.report"),
    autoescape=select_autoescape(["html"]),
    finalize=_inert,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.globals |= {"TRUE_COLOUR": TRUE_COLOUR, "PREDICTED_COLOUR": PREDICTED_COLOUR}
_TEMPLATES.filters |= {"escape_markdown": escape_markdown, "code": code}


def render(template: str, **values: Any) -> str:
    """A self-contained HTML page (``*.html``) or a Markdown document (``*.md``).

    Values are inert text: HTML templates escape everything but `markupsafe.Markup`; Markdown templates escape what
    passes their filters ``escape_markdown`` and ``code``.
    """
    return _TEMPLATES.get_template(template).render(values)


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
