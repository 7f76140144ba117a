"""Benchmarks of uzswap against what the machine can do and against what users would pick instead.

``make bench`` runs them all; ``python -m benchmarks.bench_store --quick`` runs one.
"""
