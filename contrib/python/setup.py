"""pyproject.toml says it all. This only sends what setuptools would leave here, build/ and ipcfs.egg-info/, elsewhere."""

import tempfile

from setuptools import setup

scratch = tempfile.TemporaryDirectory()
setup(options={'build': {'build_base': scratch.name}, 'egg_info': {'egg_base': scratch.name}})
