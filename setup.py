"""The part that is compiled: everything else about the package is said in pyproject.toml."""

from __future__ import annotations

from setuptools import Extension, setup

setup(
    ext_modules=[
        # Not a Python module but a library that httpd loads; setuptools builds it where the package is.
        Extension(
            "luban.adapters.apache_httpd._slot_names",
            ["operator/luban/adapters/apache_httpd/slot_names.c"],
            extra_compile_args=["-std=gnu11", "-Wall", "-Wextra"],
            libraries=["dl"],
        ),
    ],
)
