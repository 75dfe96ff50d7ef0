"""A package that vdsm-bench knows nothing of; it takes part through entry points."""
