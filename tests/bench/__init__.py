"""Benchmarks: ratios in one run, alternating, never a stopwatch in a test.

python -m tests.bench [--quick] [--json FILE] [--only NAME …]
"""
