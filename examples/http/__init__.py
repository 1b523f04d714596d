"""The handler in the frameworks that people use."""
