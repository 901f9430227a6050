"""What tools/benchmark.py measures: each table from one run, alternatives in turn."""
