"""Data of components, found again by what the component is and where its input came from."""

from entropic.datastore.components import hash_state, join_with_underscores
from entropic.datastore.contents import ComponentState, DataItem
from entropic.datastore.store import DataStore

__all__ = ["ComponentState", "DataItem", "DataStore", "hash_state", "join_with_underscores"]
