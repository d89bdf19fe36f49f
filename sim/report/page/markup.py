"""HTML built from elements, never from strings: whatever a scenario says is text, because nothing here can be markup.

Owns elements and their serialisation (``xml.etree`` escapes text and attributes), and JSON that may stand inside a
script element. Knows nothing of steps.
"""

from __future__ import annotations

import json
from xml.etree.ElementTree import Element, tostring

Child = Element | str | None

_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Element:
    """An element with its children in order; ``None`` among children and attributes is left out.

    Names of attributes are written with underscores (``aria_label``, ``class_``); case is kept (``viewBox``).

    >>> render(tag("p", "1 < 2", class_="note"))
    '<p class="note">1 &lt; 2</p>'
    """
    element = Element(name)
    for key, value in attributes.items():
        if value is not None:
            element.set(key.rstrip("_").replace("_", "-"), value if isinstance(value, str) else f"{value:g}")
    for child in children:
        if isinstance(child, str):
            _append_text(element, child)
        elif child is not None:
            element.append(child)
    return element


def _append_text(element: Element, text: str) -> None:
    """Text after what is there: of the element, or behind its last child."""
    if len(element):
        element[-1].tail = (element[-1].tail or "") + text
    else:
        element.text = (element.text or "") + text


def render(element: Element) -> str:
    """HTML of an element; what no file can hold (half of a surrogate pair) becomes a question mark."""
    text = tostring(element, encoding="unicode", method="html")
    return text.encode("utf-8", errors="replace").decode()


def json_text(value: object) -> str:
    r"""JSON that says nothing to an HTML parser: no ``</script>``, no ``<!--``; all else but ASCII is escaped as well.

    >>> json_text({"name": "</script>"})
    '{"name":"\\u003c/script\\u003e"}'
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)
