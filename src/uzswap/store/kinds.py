"""What the weighing of values has to know of a type: whether its objects can change, refer to others, come back.

The table is of types of the standard library and numpy; every other type is looked at when its first object is met.
"""

from __future__ import annotations

import array
import datetime
import decimal
import enum
import fractions
import functools
import gc
import io
import ipaddress
import logging
import pathlib
import re
import types
import uuid
import weakref
import zoneinfo
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar

import numpy as np

from uzswap.store.arena import Memory
from uzswap.store.measures import Measure, measure_of

__all__ = ["MEMORY", "Kind", "Traits", "opaque", "sealed", "traits_of"]

_MANAGED_DICT: Final = 1 << 4  # Py_TPFLAGS_MANAGED_DICT: attributes are kept in an array and not in a dict


class Kind(enum.Enum):
    NOTHING = enum.auto()  # stored by name, or a singleton: no weight, not followed
    ATOM = enum.auto()  # can't change and refers to nothing that could
    VALUE = enum.auto()  # can't change, nor can what it refers to, which is its own
    FROZEN = enum.auto()  # can't change, but what it refers to may
    DICT = enum.auto()
    ARRAY = enum.auto()
    STUCK = enum.auto()  # can't come back as it was: not followed
    OBJECT = enum.auto()  # anything else: can change


class Traits(NamedTuple):
    """What the walk has to know of a type."""

    kind: Kind
    weighs: bool
    followed: bool
    shareable: bool  # an outside reference to it does no harm
    stuck: bool  # no copy of it is as good
    weakly: bool  # takes weak references
    attributes: bool  # keeps attributes that its size leaves out
    measure: Measure | None  # what its objects occupy, where sys.getsizeof() does not know
    hides_dict: bool  # may have a __dict__ that the garbage collector is not told of


_BY_NAME: Final[tuple[type, ...]] = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.CodeType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.GenericAlias,
    types.UnionType,
    types.NoneType,
    types.EllipsisType,
    types.NotImplementedType,
    bool,
    enum.Enum,
    logging.Logger,
    np.dtype,
    np.ufunc,
    type(np.sum),
    functools._lru_cache_wrapper,
)
# Functions that Cython compiled, of which each of its versions makes a type of its own.
_COMPILED: Final = frozenset({"cython_function_or_method", "fused_cython_function"})
# Exact types: a subclass may have attributes.
_EXACT: Final[Mapping[type, Kind]] = {
    types.BuiltinFunctionType: Kind.FROZEN,  # refers to its module, or, as a method, to its object
    **dict.fromkeys((int, float, complex, str, bytes, range, decimal.Decimal, re.Pattern), Kind.ATOM),
    **dict.fromkeys((datetime.date, datetime.datetime, datetime.time, datetime.timedelta), Kind.ATOM),
    **dict.fromkeys((datetime.timezone, zoneinfo.ZoneInfo), Kind.ATOM),
    **dict.fromkeys((fractions.Fraction, uuid.UUID), Kind.VALUE),
    **dict.fromkeys((pathlib.PosixPath, pathlib.PurePosixPath, pathlib.PureWindowsPath), Kind.VALUE),
    **dict.fromkeys((ipaddress.IPv4Address, ipaddress.IPv6Address), Kind.VALUE),
    **dict.fromkeys((ipaddress.IPv4Network, ipaddress.IPv6Network), Kind.VALUE),
}
# A frame can't be copied, and pickle drops the traceback of an exception without a word.
_STUCK: Final[tuple[type, ...]] = (
    types.FrameType,
    types.TracebackType,
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
)
# Their finalizer closes them, which nobody sees.
_FINALIZED_IN_VAIN: Final = frozenset({io.BytesIO, io.StringIO})
# Where the blocks of a data frame belong in it, and what they are made of; frames that are copies share them.
_VALUES_OF_PANDAS: Final = frozenset({"BlockPlacement", "ExtensionDtype"})
# Arrow's columns are never written to.
_ATOMS_OF_ARROW: Final = frozenset(
    {"Array", "ChunkedArray", "DataType", "Field", "RecordBatch", "Scalar", "Schema", "Table"}
)
# What may own the memory of an array.  Behind anything else (mmap, shared memory, a C library) are others.
MEMORY: Final[tuple[type, ...]] = (bytes, bytearray, array.array, Memory)

_opaque: weakref.WeakSet[type] = weakref.WeakSet()
_sealed: weakref.WeakSet[type] = weakref.WeakSet()
_Class = TypeVar("_Class", bound=type)


def opaque(cls: _Class) -> _Class:
    """Class decorator: what holds an object of ``cls`` stays resident, and the object is not followed."""
    _opaque.add(cls)
    return cls


def sealed(cls: _Class) -> _Class:
    """Class decorator: an object of ``cls`` is taken at its word, and not followed.

    It pickles all that is in it, and who holds part of that keeps nothing resident: what comes back is a copy.  Its
    store is told what it weighs (``sizeof=``), and copies (``shared="copy"``).
    """
    _sealed.add(cls)
    return cls


def traits_of(cls: type) -> Traits:
    traits = _known.get(cls) or _learned.get(cls)
    if traits is None:
        traits = _learned[cls] = _learn(cls)
    return traits


def _learn(cls: type) -> Traits:
    kind = _classify(cls)
    weighs = kind is not Kind.NOTHING
    managed = bool(cls.__flags__ & _MANAGED_DICT)
    return Traits(
        kind=kind,
        weighs=weighs,
        followed=kind not in (Kind.NOTHING, Kind.ATOM, Kind.STUCK),
        shareable=kind in (Kind.NOTHING, Kind.ATOM, Kind.VALUE, Kind.FROZEN),
        # Dropping an object with a finalizer would run that while its key is still there.
        stuck=kind is Kind.STUCK or (weighs and hasattr(cls, "__del__") and cls not in _FINALIZED_IN_VAIN),
        weakly=bool(cls.__weakrefoffset__),
        attributes=managed and _ATTRIBUTES_UNCOUNTED,
        measure=measure_of(cls) if kind is Kind.OBJECT or _is_arrow(cls) else None,
        hides_dict=managed and _DICT_HIDDEN,
    )


def _classify(cls: type) -> Kind:
    if issubclass(cls, _BY_NAME) or cls.__name__ in _COMPILED:
        return Kind.NOTHING
    if cls in _sealed:
        return Kind.ATOM
    if cls in _EXACT:
        return _EXACT[cls]
    if any(base.__module__.startswith("pandas.") and base.__name__ in _VALUES_OF_PANDAS for base in cls.__mro__):
        return Kind.VALUE
    if _is_arrow(cls):
        return Kind.ATOM
    if issubclass(cls, _STUCK) or not _opaque.isdisjoint(cls.__mro__):
        return Kind.STUCK
    if issubclass(cls, (np.ndarray, np.void)):
        return Kind.ARRAY
    if issubclass(cls, np.generic):
        return Kind.ATOM
    if issubclass(cls, dict):
        return Kind.DICT
    if issubclass(cls, (tuple, frozenset)) and not cls.__dictoffset__ and not cls.__flags__ & _MANAGED_DICT:
        return Kind.FROZEN
    return Kind.OBJECT


def _is_arrow(cls: type) -> bool:
    return any(base.__module__ == "pyarrow.lib" and base.__name__ in _ATOMS_OF_ARROW for base in cls.__mro__)


class _Probe:
    def __init__(self) -> None:
        self.first = self.second = None


def _dict_is_hidden() -> bool:
    """Whether the garbage collector is not told of a __dict__ that somebody asked for (3.13)."""
    probe = _Probe()
    attributes = vars(probe)
    return not any(thing is attributes for thing in gc.get_referents(probe))


_ATTRIBUTES_UNCOUNTED: Final = _Probe().__sizeof__() == _Probe.__basicsize__
_DICT_HIDDEN: Final = _dict_is_hidden()

#: Traits of the types that most values are made of, and, for as long as they live, of all others that were met.
_known: Final[Mapping[type, Traits]] = {
    cls: _learn(cls)
    for cls in (*_EXACT, *_BY_NAME, bytearray, dict, list, tuple, set, frozenset, np.ndarray, OrderedDict, defaultdict)
}
_learned: Final[weakref.WeakKeyDictionary[type, Traits]] = weakref.WeakKeyDictionary()
