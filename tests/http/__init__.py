"""The HTTP handler, through HTTP."""  # noqa: A005 - the name of what is tested
