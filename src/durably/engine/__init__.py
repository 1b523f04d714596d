"""What happens: triggering, executing, keeping leases, delivering events.

Imports `durably.core` only; reaches a database through the port, never by SQL.
"""
