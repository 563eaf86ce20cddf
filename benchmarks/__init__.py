"""Measures edgepool against its peers, in one interleaved run.

``python -m benchmarks`` runs every row of the speed table; ``README.md`` here says how
it measures and how to read the answer.
"""
