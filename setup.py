"""Puts registry.yaml, which stands at the top of the checkout, inside the wheel."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRegistry(build_py):
    """Copies registry.yaml into the package; an editable install reads the checkout's."""

    def run(self) -> None:
        """Builds the package, then copies."""
        super().run()
        if not self.editable_mode:
            self.copy_file(
                "registry.yaml", str(Path(self.build_lib, "vdsm_bench", "registry.yaml"))
            )


setup(cmdclass={"build_py": BuildWithRegistry})
