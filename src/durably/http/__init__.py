"""Serves an instance over HTTP and server-sent events. Needs the extra `http`.

>>> from durably import AuthConfig, create_durably_handler
"""

from durably.http.auth import AuthConfig
from durably.http.handler import CreateDurablyHandlerOptions, DurablyHandler, create_durably_handler
from durably.http.problems import Reject

__all__ = ["AuthConfig", "CreateDurablyHandlerOptions", "DurablyHandler", "Reject", "create_durably_handler"]
