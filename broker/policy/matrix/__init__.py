"""The access matrix: the whole truth of a policy, folded so that a person can read it.

    rows.py     the matrix: a section per set of roles, a row per box of points with one answer
    words.py    how sides of a box are told      text.py, sheet.py, page.py, mapping.py    the forms it takes

Invariants:
- exact: unfolding the rows gives back the decision and the deciding rule at every point;
- each row is true by itself, whatever stands above it; what no row has is withheld;
- the same policy gives the same bytes everywhere, so that a change shows as a diff.
"""

from broker.policy.matrix.mapping import as_mapping
from broker.policy.matrix.page import as_html
from broker.policy.matrix.rows import Matrix, Row, Section, matrix
from broker.policy.matrix.sheet import as_csv
from broker.policy.matrix.text import as_text

__all__ = ["Matrix", "Row", "Section", "as_csv", "as_html", "as_mapping", "as_text", "matrix"]
