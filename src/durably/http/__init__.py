"""Serves an instance over HTTP and server-sent events. Needs the extra `http`.

>>> from durably import AuthConfig, create_durably_handler
"""

try:
    from durably.http.auth import AuthConfig
    from durably.http.handler import CreateDurablyHandlerOptions, DurablyHandler, create_durably_handler
    from durably.http.problems import Reject
except ModuleNotFoundError as missing:
    if missing.name is None or not missing.name.startswith("starlette"):
        raise
    raise ModuleNotFoundError(
        "durably.http needs Starlette, which is not installed: pip install 'durably[http]'", name=missing.name
    ) from missing

__all__ = ["AuthConfig", "CreateDurablyHandlerOptions", "DurablyHandler", "Reject", "create_durably_handler"]
