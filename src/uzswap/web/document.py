"""The page: HTML with its style, its script, BokehJS and the plots inline, so that nothing is fetched from anywhere."""

from __future__ import annotations

import json
import secrets
from functools import cache
from importlib.resources import files
from string import Template

try:
    from bokeh.resources import Resources
except ImportError as error:
    raise ImportError("the page needs bokeh: pip install 'uzswap[web]'") from error

from uzswap.web.figures import items

__all__ = ["document"]


@cache
def _bokeh() -> str:
    return "\n".join(Resources(mode="inline", minified=True, components=["bokeh"]).js_raw)


def document() -> tuple[str, dict[str, str]]:
    """Return the page and the headers to send with it: no script but its own runs, nothing is asked of anybody else."""
    nonce = secrets.token_urlsafe(16)
    here = files("uzswap.web")
    plots = json.dumps(items()).replace("</", "<\\/")
    scripts = (_bokeh(), f"window.uzswapItems = {plots};", (here / "page.js").read_text())
    text = Template((here / "page.html").read_text()).substitute(
        style=(here / "page.css").read_text(),
        scripts="\n".join(f'<script nonce="{nonce}">{script}</script>' for script in scripts),
    )
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data: blob:; style-src 'unsafe-inline'; "
        f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
