"""vdsm-bench: a model zoo and benchmark harness for video disentanglement."""

__version__ = "0.1.0"
