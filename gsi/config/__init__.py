"""Typed configuration: YAML plus `a.b=c` overrides. Class defaults are the paper's settings (arXiv 2411.00750).

    data.py, sampling.py, engines.py, training.py, cost.py    the sections, every key with its default
    tree.py       the whole `Config`, and what a strategy or preset implies
    checks.py     what does not fit together
    reading.py    `load_config`, and error messages

An unknown key or a bad value raises `ConfigError`, which says where it is, what is allowed and, for a typo, the
nearest known key. Functions elsewhere receive values from here, not the whole tree.
"""

from gsi.config.reading import load_config
from gsi.config.section import ConfigError
from gsi.config.tree import Config

__all__ = ["Config", "ConfigError", "load_config"]
