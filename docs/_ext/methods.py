"""``.. pe-methods::``: every registered PE method, from the registry: a table, then each class.

So a new method is in the reference without a word here.
"""

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

import pemeta
import pemeta.methods


class Methods(Directive):
    def run(self):
        members = pemeta.methods.PEMethod.members()
        rows = [".. list-table::", "   :header-rows: 1", "   :widths: 15 20 65", ""]
        rows += ["   * - name", "     - class", "     - what it is"]
        for name, method in members.items():
            first = (method.__doc__ or "").strip().splitlines()[0]
            rows += [f"   * - ``{name}``", f"     - :class:`~{path(method)}`", f"     - {first}"]
        rows.append("")
        for method in members.values():
            rows += [f".. autoclass:: {path(method)}", "   :show-inheritance:", "   :no-members:", ""]
            rows += ["   .. autoattribute:: paper", ""]
        box = nodes.Element()
        self.state.nested_parse(StringList(rows, source="the registry of PE methods"), 0, box)
        return box.children


def path(method):
    """Where a class is public: in ``pemeta``, or in ``pemeta.methods``."""
    return f"pemeta.{method.__name__}" if method.__name__ in pemeta.__all__ else f"pemeta.methods.{method.__name__}"


def setup(app):
    app.add_directive("pe-methods", Methods)
    return {"parallel_read_safe": True}
