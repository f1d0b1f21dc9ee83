"""Where configs are kept: by kind and name, each once, in a database or as readable files."""

from entropic.config_store.folder import FileConfigStore
from entropic.config_store.interface import ConfigStore
from entropic.config_store.sql import SQLConfigStore
from entropic.errors import DuplicateNameError

__all__ = ["ConfigStore", "DuplicateNameError", "FileConfigStore", "SQLConfigStore"]
