"""Values under keys, in stores of a data set or of all: with times to live, policies and atomic changes."""

from entropic.errors import DuplicateStoreError
from entropic.execution_store.documents import DeleteCount, KeyDocument, KeyPolicy, StoreDocument
from entropic.execution_store.events import Change
from entropic.execution_store.service import ExecutionStoreService
from entropic.execution_store.store import ExecutionStore

__all__ = [
    "Change",
    "DeleteCount",
    "DuplicateStoreError",
    "ExecutionStore",
    "ExecutionStoreService",
    "KeyDocument",
    "KeyPolicy",
    "StoreDocument",
]
