"""The library's own tables, one idea a file; no queries.

Importing this package puts all of them on `LibraryBase.metadata`, which is what the migrations describe.
"""

from entropic.models.attempts import AttemptRow
from entropic.models.claims import ClaimRow
from entropic.models.files import FileRow
from entropic.models.meta import MetaRow
from entropic.models.tables import TableRow

__all__ = ["AttemptRow", "ClaimRow", "FileRow", "MetaRow", "TableRow"]
