"""Measurements of durably, each beside the limit that the machine sets in the same run.

`python -m benchmarks` measures the SQLite core; the other programs of this folder say themselves what they
measure. Each writes its own section of RESULTS.md.
"""
