"""``python -m vdsm_bench``: the same as the console script ``vdsm-bench``."""

from vdsm_bench.cli.main import main

if __name__ == "__main__":
    main()
