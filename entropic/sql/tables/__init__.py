"""The library's own tables, one idea a file; no queries.

Importing this package puts all of them on `LibraryBase.metadata`, which is what the migrations describe.
"""

from entropic.sql.tables.attempts import AttemptRow
from entropic.sql.tables.claims import ClaimRow
from entropic.sql.tables.files import FileRow
from entropic.sql.tables.meta import MetaRow
from entropic.sql.tables.registered import TableRow

__all__ = ["AttemptRow", "ClaimRow", "FileRow", "MetaRow", "TableRow"]
