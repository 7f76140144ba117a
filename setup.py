"""Builds what is compiled: the data plane, each module of src/uzswap/core, and what signal handlers must not tear.

Everything else about the package is in pyproject.toml.
"""

import os
import subprocess
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("src/uzswap/core")
#: Ordinary Python, compiled as it is for what that does to signals: CPython runs their handlers between two bytecodes,
#: and compiled code has none.  So no handler runs, and no exception of one arises, between two steps of these modules,
#: but only within what they call, where errors are to be expected anyway.  Nor does another thread run there, unless
#: what is called gives up the GIL.
UNTORN = (
    "arrays/allocating",
    "arrays/kept",
    "arrays/managed",
    "caches/bounded",
    "caches/deadlines",
    "caches/keys",
    "caches/layer",
    "caches/once",
    "caches/ttl",
    "cgroup/memcg",
    "cgroup/pressure",
    "cgroup/psi",
    "cgroup/tree",
    "cgroup/trigger",
    "condition",
    "engine/lifetime",
    "engine/pages",
    "engine/paging",
    "engine/zswap",
    "reclaim/limits",
    "signals",
    "store/buffers",
    "store/store",
    "store/weigh",
    "threads",
    "units",
)
#: Compiled with types, like the data plane, though they know Python's objects: the life of a value, and the walk over
#: the millions that one may be made of.
OBJECTS = (
    "store/arena",
    "store/eviction",
    "store/forms",
    "store/loading",
    "store/lruvec",
    "store/slabs",
    "store/slot",
    "store/slots",
    "store/survey",
    "store/table",
    "store/walk",
)
#: what has to do with numpy's C interface
OF_NUMPY = ("handler", "survey", "walk")

#: Header -> the Debian package that brings it, in the order in which a bare machine misses them.
HEADERS = {
    "stdio.h": "gcc libc6-dev",
    "Python.h": "python3-dev",
    "lz4.h": "liblz4-dev",
    "zstd.h": "libzstd-dev",
    "xxhash.h": "libxxhash-dev",
}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "infer_types": True,
    "initializedcheck": False,
}
#: Annotations say what mypy checks, not what is converted to C.
UNTORN_DIRECTIVES = {"language_level": 3, "annotation_typing": False, "infer_types": False, "autotestdict": False}


def cpus() -> int:
    return len(os.sched_getaffinity(0))


class BuildCore(build_ext):
    """``build_ext`` that names the missing Debian package, then translates all modules in one parallel pass."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or cpus()

    def build_extensions(self) -> None:
        self.probe_headers()
        untorn_names = {f"uzswap.{name.replace('/', '.')}" for name in UNTORN}
        untorn = [extension for extension in self.extensions if extension.name in untorn_names]
        core = [extension for extension in self.extensions if extension not in untorn]
        self.extensions[:] = core + untorn
        translated = [
            copy
            for some, directives in ((core, DIRECTIVES), (untorn, UNTORN_DIRECTIVES))
            for copy in cythonize(
                some,
                # Worker processes need POSIX semaphores, which some containers do not have.
                nthreads=cpus() if os.access("/dev/shm", os.W_OK) else 0,
                compiler_directives=directives,
                include_path=["src"],
                # Not beside the sources: nothing generated ends up in the package or in a listing of it.
                build_dir="build/cython",
                force=self.force,
            )
        ]
        # cythonize() returns copies; setuptools has put its own attributes on ours, so these are kept.
        for extension, copy in zip(self.extensions, translated, strict=True):
            extension.sources = copy.sources
        super().build_extensions()

    def probe_headers(self) -> None:
        """Let the compiler read one header at a time; one it cannot find ends the build with a line that helps."""
        includes = [f"-I{path}" for path in self.compiler.include_dirs]
        for header, package in HEADERS.items():
            command = [*self.compiler.compiler_so, *includes, "-fsyntax-only", "-x", "c", "-"]
            # xxhash.h and others need size_t before them when they are read alone.
            source = f"#include <stddef.h>\n#include <{header}>\n"
            try:
                subprocess.run(command, input=source, text=True, capture_output=True, check=True)
            except (OSError, subprocess.CalledProcessError):
                raise SystemExit(f"uzswap: {header} not found: apt-get install {package}") from None


def extensions() -> list[Extension]:
    # Of *.pxd cythonize() knows who depends on which.
    headers = sorted(str(path) for room in (CORE, CORE.parent / "store") for path in room.rglob("*.h"))
    objects = [Path(f"src/uzswap/{name}.py") for name in OBJECTS]
    untorn = [
        # Nobody steps through C that calls the interpreter: without what debuggers need it takes 0.7 of the time.
        Extension(f"uzswap.{name.replace('/', '.')}", [f"src/uzswap/{name}.py"], extra_compile_args=["-O2", "-g0"])
        for name in UNTORN
    ]
    # No module: what `uzswap run` preloads.
    preload = Extension(
        "uzswap.core.paging.preload",
        [str(CORE / "paging" / "preload.c")],
        depends=headers,
        extra_compile_args=["-O3", "-std=gnu11"],
    )
    return [preload, *untorn] + [
        Extension(
            ".".join(path.relative_to("src").with_suffix("").parts),
            [str(path)],
            depends=headers,
            include_dirs=[
                str(CORE / "device"),
                str(CORE / "paging"),
                str(CORE / "store"),
                *((str(path.parent), numpy.get_include()) if path.stem in OF_NUMPY else ()),
            ],
            # numpy 1.22 brought data handlers.
            define_macros=[
                ("NPY_TARGET_VERSION", "NPY_1_22_API_VERSION"),
                ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
            ]
            if path.stem in OF_NUMPY
            else [],
            libraries=["lz4", "zstd", "xxhash", "pthread"],
            extra_compile_args=["-O3", "-std=gnu11"],
        )
        for path in [*sorted(CORE.rglob("*.py")), *objects]
        if path.stem != "__init__"
    ]


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildCore})
