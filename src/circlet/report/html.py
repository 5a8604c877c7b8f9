"""Pages as single files that need no network."""

from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert

from circlet.report.style import DARK_COLOURS


def rendered(template: Path, **content: Any) -> str:
    """A page.

    Args:
        template: A template that extends base.html; beside it may stand others that it takes in.
        content: What the template shows; base.html takes `name`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template.name)
    return page.render(**content, dark_colours=DARK_COLOURS, script=_vega_script())


@cache
def _vega_script() -> str:
    """Vega, Vega-Lite and Vega-Embed in the version that Altair writes for, as one script."""
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    return script.replace("</script", "<\\/script")
