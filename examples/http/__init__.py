"""The handler in the frameworks that people use."""  # noqa: A005 - the name of what is shown
