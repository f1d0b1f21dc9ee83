"""Where configs are kept: by kind and name, each once, as readable files."""

from entropic.config_store.folder import FileConfigStore
from entropic.config_store.interface import ConfigStore
from entropic.errors import DuplicateNameError

__all__ = ["ConfigStore", "DuplicateNameError", "FileConfigStore"]
