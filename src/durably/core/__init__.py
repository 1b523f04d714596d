"""What things are: runs, steps, leases, events, jobs and the port to a store.

Imports the standard library and Pydantic only; does no I/O and never asks for the time.
"""
