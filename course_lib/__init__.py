"""The library behind the course: every model family and metric, one file per paper.

Start with :func:`course_lib.data.load` for data, :func:`course_lib.core.fit` for training and
:data:`course_lib.catalog.CATALOG` for the list of all systems.
"""

__version__ = "0.1.0"
