"""Formulas as MathML, by docutils' own converter: browsers show it without JavaScript, so pages work offline."""

from docutils.utils.math.latex2mathml import tex2mathml


def _inline(self, node):
    self.body.append(tex2mathml(node.astext()))


def _display(self, node):
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')


def _nothing(self, node):
    pass


def setup(app):
    # The visitors write the whole formula, so docutils must not go on to the text inside: hence the skipping.
    from docutils.nodes import SkipNode

    def skipping(visit):
        def visitor(self, node):
            visit(self, node)
            raise SkipNode

        return visitor

    app.add_html_math_renderer("mathml", (skipping(_inline), _nothing), (skipping(_display), _nothing))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
