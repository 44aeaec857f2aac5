"""Benchmarks: each prints ratios against peers, measured in one run."""
