"""Python values that a compiled step would freeze: found before they do harm."""

from __future__ import annotations

import functools
import io
import random
import sys
import types
import weakref
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from enum import Enum
from operator import call, eq, is_
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

_LIMIT = 20_000  # values of a program
_LONG = 1_000  # items of a container; a longer one is data, of which the length is watched
_BYTES = 100_000  # of an array; a larger one is data
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, Enum)
_FOREIGN = {"torch", "pyro", "numpy", "builtins", "collections", "typing", "math", "weakref"}
_NO_STATE = _FOREIGN | {"logging", "threading", "warnings"}  # what theirs holds is no model's
_LOUD = {"training", "_modules", "_parameters", "_buffers"}
_LOUD |= {"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"}
_QUIET = frozenset(vars(nn.Module())) - _LOUD  # of no account
_BOUND = (types.FunctionType, staticmethod, classmethod, property)
_SLOT = (types.MemberDescriptorType, types.GetSetDescriptorType)


class Watch:
    """The Python values that a program can reach, as they are now.

    Looked into: closures, globals, defaults and attributes of functions, attributes of modules and
    other objects, containers, generators of random numbers. Of a tensor the identity counts, for
    its values are data of a graph.

    Args:
        roots: Where to begin.

    Attributes:
        iterators: Where iterators are held: nobody can tell what they give next.
        complete: Whether all that can be reached is watched.
        stale: Whether a container was exchanged for an equal one, which is not looked into.

    Example:
        >>> beta = {"now": 1.0}
        >>> watch = Watch(lambda: beta["now"])
        >>> beta["now"] = 0.5
        >>> watch.changes()
        ["beta.'now': 1.0, then 0.5"]
        >>> watch.rewind()
        >>> beta, watch.changes()
        ({'now': 1.0}, [])
    """

    def __init__(self, *roots: object) -> None:
        self.iterators: list[str] = []
        # Parallel lists, for they are compared at every step: get[k](key[k]) is value[k].
        self._get: list[Callable[[Any], object]] = []
        self._key: list[Any] = []
        self._value: list[object] = []
        self._path: list[str] = []
        self._set: list[Callable[[Any, Any], object]] = []
        self._sized: list[Any] = []
        self._length: list[int] = []
        self._copies: list[tuple[Any, Any]] = []  # containers, and what was in them
        self._contents = [_Content("torch's autocast", _autocast, _nothing)]
        self._generators = [
            _Content("Python's random numbers", random.getstate, random.setstate),
            _Content("NumPy's random numbers", _numpy_state, np.random.set_state),
        ]
        # Installed packages keep caches of their own; the program's own package may be one too.
        nets = [m for r in roots if isinstance(r, nn.Module) for m in r.modules()]
        functions = [vars(m).get(name) for m in nets for name in ("model", "guide")]
        self._own = {_home(type(m)) for m in nets} | {_home(_unwrapped(f)) for f in functions}
        self._entered: set[int] = set()  # modules, on the way through modules
        seen: set[int] = set()
        stack: list[tuple[str, Any]] = [(f"[{k}]", r) for k, r in enumerate(roots)]
        while stack and len(self._key) < _LIMIT:
            path, value = stack.pop()
            if isinstance(value, _PLAIN) or id(value) in seen:
                continue
            seen.add(id(value))
            if not self._is_leaf(path, value):
                stack += self._into(path, value)
        self.complete = not stack
        self.stale = False

    def changes(self, *, generators: bool = False) -> list[str]:
        """Say what is no longer as it was: "path: value, then value".

        Args:
            generators: Look at generators of random numbers too, against what they were at
                `begin`: what draws from one as a program runs. In between others may as they like.
        """
        if self._is_same() and not generators:
            return []
        found = []
        for k, (path, old) in enumerate(zip(self._path, self._value, strict=True)):
            now = _read(self._get[k], self._key[k])
            if _same(old, now):
                self._value[k] = now  # an equal one: compared by identity from now on
                self.stale |= not isinstance(now, _PLAIN) and now is not old
            else:
                found.append(f"{_name(path)}: {_shown(old)}, then {_shown(now)}")
        for owner, length in zip(self._sized, self._length, strict=True):
            if len(owner) != length and not isinstance(owner, list):
                known = next((c for o, c in self._copies if o is owner), owner)
                new = [str(k) for k in owner if k not in known]
                found.append(f"the names {new[:3]} came or went" if new else "a name went")
            elif len(owner) != length:
                found.append(f"a list of {length} has {len(owner)} now")
        watched = self._contents + (self._generators if generators else [])
        said = {id(c): "drawn from or set" for c in self._generators}
        return found + [
            f"{_name(c.path)}: {said.get(id(c), 'changed')}" for c in watched if c.changed()
        ]

    def begin(self) -> None:
        """Take generators of random numbers as they are now."""
        for generator in self._generators:
            generator.value = generator.read()

    def rewind(self) -> None:
        """Put everything back to what it was."""
        for owner, kept in self._copies:
            if isinstance(owner, list):
                owner[:] = kept
            elif len(owner) != len(kept) or not all(map(is_, owner.values(), kept.values())):
                owner.clear()
                owner.update(kept)
        for k, old in enumerate(self._value):
            if _read(self._get[k], self._key[k]) is not old:
                self._set[k](self._key[k], old)
        for content in (*self._contents, *self._generators):
            if content.changed():
                content.write(content.value)

    def _is_same(self) -> bool:
        try:
            return (
                all(map(eq, map(len, self._sized), self._length))
                and all(map(is_, map(call, self._get, self._key), self._value))
                and not any(content.changed() for content in self._contents)
            )
        except Exception:  # an index, a cell, a slot is gone; a mapping of the user's own
            return False

    def _is_leaf(self, path: str, value: Any) -> bool:  # noqa: ANN401
        if isinstance(value, Tensor | np.generic):
            return True
        if isinstance(value, np.ndarray):
            if value.nbytes < _BYTES:
                write = functools.partial(np.copyto, value)
                self._contents.append(_Content(path, value.copy, write, _same_array))
            return True
        if isinstance(value, array):
            write = functools.partial(value.__setitem__, slice(None))
            self._contents.append(_Content(path, functools.partial(copy, value), write))
            return True
        if isinstance(value, set | deque):
            write = functools.partial(_refill, value)
            self._contents.append(_Content(path, value.copy, write, _same))
            return True
        generator = _generator(path, value)
        if generator is not None:
            self._generators.append(generator)
            return True
        if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            self.iterators.append(_name(path))
            return True
        return False

    def _into(self, path: str, value: Any) -> list[tuple[str, Any]]:  # noqa: ANN401
        if isinstance(value, types.MethodType):
            return [(path, value.__self__), (path, value.__func__)]
        if isinstance(value, types.FunctionType):
            return self._into_function(path, value)
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            return [] if isinstance(value.__self__, types.ModuleType) else [(path, value.__self__)]
        if isinstance(value, weakref.ref):
            return [(path, value())]
        if isinstance(value, ContextVar):
            read = functools.partial(value.get, None)
            self._contents.append(_Content(path, read, value.set, _same))
            return [(path, read())]
        if isinstance(value, types.MappingProxyType):  # it can be read, and not put back
            self._contents.append(_Content(path, functools.partial(dict, value), _nothing, _same))
            return [(f"{path}.{k!r}", v) for k, v in value.items()]
        if isinstance(value, functools.partial):
            return [(path, value.func), (path, value.args), (path, value.keywords)]
        if isinstance(value, dict):
            return self._watch_dict(path, value, repr)
        if isinstance(value, MutableMapping):  # os.environ, say
            write = functools.partial(_refill_map, value)
            self._contents.append(_Content(path, functools.partial(dict, value), write, _same))
            return [(f"{path}.{k!r}", v) for k, v in value.items()]
        if isinstance(value, list):
            return self._watch_items(path, value, range(len(value)), value.__getitem__)
        if isinstance(value, tuple | frozenset):
            return [(f"{path}.{k}", v) for k, v in enumerate(value)]
        if isinstance(value, nn.Module):
            shown = vars(value).keys() - _QUIET
            found = self._watch_dict(path, vars(value), str, shown)
            return found + self._into_class(path, type(value))
        if isinstance(value, type):
            return self._into_class(path, value) + self._into_class(path, type(value))
        if isinstance(value, Messenger):
            plain = {k for k, v in vars(value).items() if _is_value(v)}
            return self._watch_dict(path, vars(value), str, plain)
        if isinstance(value, types.ModuleType) or _home(value) in _NO_STATE:
            return []
        found = self._watch_dict(path, vars(value), str) if hasattr(value, "__dict__") else []
        for name in _slots(type(value)):
            if hasattr(value, name):
                write = functools.partial(object.__setattr__, value)  # frozen or not
                found += self._watch(path, value.__getattribute__, write, name)
        return found + self._into_class(path, type(value))

    def _is_library(self, value: object) -> bool:
        home = _home(value)
        if home in _FOREIGN or home in sys.stdlib_module_names:
            return True
        return not _is_ours(value) and home not in self._own and _is_installed(home)

    def _watch(
        self,
        path: str,
        get: Callable[[Any], object],
        write: Callable[[Any, Any], object],
        key: Any,  # noqa: ANN401
        shown: str | None = None,
    ) -> list[tuple[str, Any]]:
        value, path = get(key), f"{path}.{key if shown is None else shown}"
        self._get.append(get)
        self._key.append(key)
        self._value.append(value)
        self._path.append(path)
        self._set.append(write)
        return [(path, value)]

    def _watch_dict(
        self, path: str, held: dict[Any, Any], name: Callable[[Any], str], only: Any = None
    ) -> list[tuple[str, Any]]:
        keys = [k for k in held if only is None or k in only]
        return self._watch_items(path, held, keys, held.get, name)

    def _watch_items(
        self,
        path: str,
        held: Any,  # noqa: ANN401
        keys: Iterable[Any],
        get: Callable[[Any], object],
        name: Callable[[Any], str] = str,
    ) -> list[tuple[str, Any]]:
        self._sized.append(held)
        self._length.append(len(held))
        if len(held) > _LONG:
            return []
        self._copies.append((held, list(held) if isinstance(held, list) else dict(held)))
        found = []
        for key in keys:
            found += self._watch(path, get, held.__setitem__, key, name(key))
        return found

    def _into_class(self, path: str, kind: type) -> list[tuple[str, Any]]:
        found = []
        for owner in (k for k in kind.__mro__ if not self._is_library(k) and not _is_ours(k)):
            write = functools.partial(setattr, owner)
            for name, value in vars(owner).items():
                if isinstance(value, _BOUND):
                    self._watch(path, vars(owner).get, write, name)  # exchanged, or looked into
                    found.append((f"{path}.{name}", _unwrapped(value)))
                elif not name.startswith("__") and not isinstance(value, _SLOT):
                    found += self._watch(path, vars(owner).get, write, name)
        return found

    def _into_function(self, path: str, function: types.FunctionType) -> list[tuple[str, Any]]:
        if self._is_library(function):
            return []
        found = []
        code = function.__code__
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                found += self._watch(
                    path, cell.__getattribute__, cell.__setattr__, "cell_contents", name
                )
            except ValueError:  # bound later
                continue
        names = _names(code)
        found += self._into_namespace(path, function.__globals__, names)
        # What it imports as it runs; by now it has run.
        imported = {n: sys.modules[n] for n in names & sys.modules.keys()}
        found += self._into_namespace(path, imported, names)
        if function.__dict__:
            found += self._watch_dict(path, function.__dict__, str)
        write = functools.partial(setattr, function)
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            self._watch(path, function.__getattribute__, write, name)
        return found + [(path, function.__defaults__), (path, function.__kwdefaults__)]

    def _into_namespace(
        self, path: str, held: dict[str, Any], names: set[str]
    ) -> list[tuple[str, Any]]:
        """What code that uses these names may find in a module, and in the modules there."""
        found: list[tuple[str, Any]] = []
        for name in names & held.keys():
            value, where = held[name], f"{path}.{name}"
            if not isinstance(value, types.ModuleType):
                found += self._watch(path, held.get, held.__setitem__, name)
            elif _home(value) in sys.stdlib_module_names:
                parts = {n for n in names & vars(value).keys() if _is_value(vars(value)[n])}
                for part in parts - {"modules"}:
                    found += self._watch(where, vars(value).get, vars(value).__setitem__, part)
            elif not self._is_library(value) and id(value) not in self._entered:
                self._entered.add(id(value))
                found += self._into_namespace(where, vars(value), names)
                self._entered.discard(id(value))
        return found


@contextmanager
def put_back(*roots: object) -> Iterator[None]:
    """Undo what the code inside does to the Python state of a program, as far as it is watched."""
    try:
        watch = Watch(*roots)
    except Exception:  # attributes of the user's own that cannot be read
        watch = Watch()
    watch.begin()
    try:
        yield
    finally:
        if watch.changes(generators=True):
            watch.rewind()


class _Content:
    """Something that changes in place: read as a copy, written back."""

    def __init__(
        self,
        path: str,
        read: Callable[[], Any],
        write: Callable[[Any], object],
        equal: Callable[[Any, Any], bool] = eq,
    ) -> None:
        self.path, self.read, self.write, self.equal = path, read, write, equal
        self.value = read()

    def changed(self) -> bool:
        """Whether it is no longer what it was."""
        return not self.equal(self.value, self.read())


def _generator(path: str, value: object) -> _Content | None:
    if isinstance(value, random.Random):
        return _Content(path, value.getstate, value.setstate)
    if isinstance(value, np.random.RandomState):
        return _Content(path, functools.partial(_numpy_state, value), value.set_state)
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        return _Content(
            path, lambda: bits.state, functools.partial(setattr, bits, "state"), _same_repr
        )
    if isinstance(value, torch.Generator):
        return _Content(path, value.get_state, value.set_state, torch.equal)
    return None


def _names(code: types.CodeType) -> set[str]:
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _unwrapped(value: Any) -> Any:  # noqa: ANN401
    """The function in a partial, a method, a property, a wrapper."""
    for name in ("func", "__func__", "fget", "function", "__wrapped__"):
        if isinstance(inner := getattr(value, name, None), types.FunctionType | functools.partial):
            return _unwrapped(inner)
    return value


def _autocast() -> tuple[object, ...]:
    kinds = [k for k in ("cpu", "cuda") if torch.amp.is_autocast_available(k)]
    return tuple((torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in kinds)


def _nothing(_: object) -> None:
    """What cannot be put back is left."""


def _numpy_state(of: Any = np.random) -> tuple[Any, ...]:  # noqa: ANN401
    name, key, *rest = of.get_state(legacy=True)
    return (name, tuple(key.tolist()), *rest)


def _same_repr(a: object, b: object) -> bool:
    return repr(a) == repr(b)


def _same_array(a: Any, b: Any) -> bool:  # noqa: ANN401
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def _refill(held: Any, values: Any) -> None:  # noqa: ANN401
    held.clear()
    (held.update if isinstance(held, set) else held.extend)(values)


def _refill_map(held: MutableMapping[Any, Any], values: dict[Any, Any]) -> None:
    for key in held.keys() - values.keys():
        del held[key]
    held.update(values)


def _read(get: Callable[[Any], object], key: object) -> object:
    try:
        return get(key)
    except (LookupError, ValueError, AttributeError):
        return None


def _same(a: Any, b: Any) -> bool:  # noqa: ANN401
    """Whether a value is what it was: itself, an equal number, or a container built anew."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, _PLAIN) or isinstance(a, np.generic):
        return bool(a == b or (a != a and b != b))  # noqa: PLR0124
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, set | frozenset | range):
        return bool(a == b)
    if isinstance(a, np.ndarray):
        return a.nbytes < _BYTES and _same_array(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(v, b[k]) for k, v in a.items())
    if isinstance(a, Messenger):  # an autoguide makes its plates at every call
        plain = [{k: v for k, v in vars(m).items() if isinstance(v, _PLAIN)} for m in (a, b)]
        return plain[0] == plain[1]
    return False


def _name(path: str) -> str:
    return path.removeprefix("[0]").removeprefix(".")


def _shown(value: object) -> str:
    short = isinstance(value, _PLAIN) and len(repr(value)) < 40
    return repr(value) if short else f"some {type(value).__name__}"


def _slots(kind: type) -> Iterator[str]:
    for owner in kind.__mro__:
        slots = vars(owner).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _is_value(value: object) -> bool:
    return isinstance(value, (*_PLAIN, list, dict, Mapping, Tensor, np.ndarray))


def _home(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, types.ModuleType):
        return value.__name__.split(".")[0]
    home = getattr(value, "__module__", None) or type(value).__module__
    return home.split(".")[0] if isinstance(home, str) else ""


def _is_ours(value: object) -> bool:
    return _home(value) == "ppl_vae"


@functools.cache
def _is_installed(home: str) -> bool:
    file = getattr(sys.modules.get(home), "__file__", None) or ""
    return any(folder in Path(file).parts for folder in ("site-packages", "dist-packages"))
