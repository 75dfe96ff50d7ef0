"""What the program costs, measured; every module is run as ``python -m benchmarks.NAME``."""
