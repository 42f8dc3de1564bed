"""Sphinx configuration. The build needs no network, and neither do the pages: formulas are MathML."""

import hashlib
import os
import sys
from importlib import metadata
from pathlib import Path

import pydantic

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

# The tutorial's model is too small for threads; on busy cores, two that wait for each other take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "pemeta"
author = "The pemeta contributors"
copyright = "2026, the pemeta contributors"
version = release = metadata.version("pemeta")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "architecture",
    "command_line",
    "configuration",
    "mathml",
    "methods",
    "what_works",
]
exclude_patterns = ["_build", "tutorials/GALLERY_HEADER.rst", "tutorials/*.py"]

html_theme = "furo"
html_title = f"pemeta {release}"
html_static_path = ["_static"]
html_css_files = ["pemeta.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

add_module_names = False
autodoc_default_options = {"members": True, "member-order": "bysource", "exclude-members": "model_config"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # "Attributes:" sections stay with their class, beside autodoc's own entries

# A link that cannot be resolved fails the build. Not ours to resolve, since there is no network for intersphinx: the
# standard library, the packages we depend on, and configuration's annotated aliases of the documented families.
nitpick_ignore_regex = [
    (
        r"py:class",
        r"Any(Method|Algorithm|Backbone|Data|Head|Rule)|Labels|Output|OutputKind|Part|Pooling|Prompt|TaskType|Counts|Numbers|Name|Printable|Grid|DType",
    ),
    (r"py:class", r"Layout|SchemeSetting|'columns'|'IOB2'|0|Padding|'padded'|Tensor|TaskGroup"),
    (r"py:class", r"Problem|'single_label'|True|AdamWKind|'adamw'|MaskedOutput|TinyCausalTransformer|Form"),
    (r"py:class", r"pemeta\.(backbone\.output_map\.Factors|training\.micro_batches\.Part)|dict\[~typing\.Literal.*"),
    (r"py:(class|obj)", r"pemeta\.(data\.examples\.(Decoded|Scored)|tasks\.kinds\.(base|rows)\.Raw)"),  # type variables
    # Classes of our own that users meet only as the types of arguments that others give.
    (r"py:class", r"pemeta\.data\.(rows\.Row|tables\.reading\.Readers|tables\.held_out\._checked_share)"),
    (r"py:class", r"pemeta\.(training\.job\.Job|utils\.distributed\.Processes|experiments\.build\.Builder)"),
    (r"py:class", r"pemeta\.data\.(streams\.Stream|arrow\.ArrowFile)"),
    # Settings of data: their types and validators, as autodoc shows them.
    (
        r"py:class",
        r"BeforeValidator|PydanticUndefined|Types|Share|Split|Splits|Pattern|_mark|_of_tags|_checked|_of_labels|_of_task",
    ),
    # What is imported for type checkers alone, and types with marks that autodoc shows as they are written.
    (
        r"py:class",
        r"GeneralTracker|Path|list\[tuple\[int|Field|AfterValidator|[gl][et]=\d|\d\.\d|Neutral|False|Primes|BACKBONE|_BRIEF|_SGD|_none",
    ),
    (
        r"py:.*",
        r"(abc|collections|contextlib|pathlib|typing|typing_extensions|learn2learn|numpy|pandas|pd|pydantic|tokenizers|torch|transformers)\..*",
    ),
]

# The gallery finds its own copy of an example below the folder of examples, and takes it for a second one.
suppress_warnings = ["sphinx_gallery.duplicate_filename"]

# The gallery runs an example again when its script changed; it cannot know that pemeta did, so we tell it.
GENERATED = DOCS / "tutorials" / "generated"
_sources = sorted((DOCS.parent / "pemeta").rglob("*.py"))
_digest = hashlib.sha256(b"".join(path.read_bytes() for path in _sources)).hexdigest()
_stamp = GENERATED / "pemeta-digest.txt"

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "tutorials/generated",
    "run_stale_examples": not _stamp.exists() or _stamp.read_text() != _digest,
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
}


def _remember_digest(app, error):
    if error is None and GENERATED.is_dir():
        _stamp.write_text(_digest)


def _plain_signature(app, what, name, obj, options, signature, return_annotation):
    """Of a pydantic model only names and defaults: types with their bounds are on the configuration page."""
    if what != "class" or not issubclass(obj, pydantic.BaseModel):
        return None
    fields = obj.model_fields.items()
    parts = [key if field.is_required() else f"{key}={field.default!r}" for key, field in fields]
    return f"(*, {', '.join(parts)})" if parts else "()", None


def setup(app):
    app.connect("autodoc-process-signature", _plain_signature)
    app.connect("build-finished", _remember_digest)
