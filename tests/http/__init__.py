"""The HTTP handler, through HTTP."""
