"""Files of tensors that other people saved with PyTorch, read without PyTorch, executing nothing.

A pickle is a program: who unpickles it runs it. Here an interpreter of our own follows the few
instructions that a file of tensors needs, and a class is never more than a name. It can make
dictionaries, lists, tuples, numbers, strings and tensors; everything else is refused by name with
an UnsafePickleError.

Both layouts of torch.save are read: the zip archive of PyTorch 1.6 and later, and the stream of
pickles that came before it.
"""

from __future__ import annotations

import io
import math
import pickletools
import reprlib
import struct
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crossview.errors import UnsafePickleError, WeightsError

MAX_BYTES = 4_000_000_000
"""Most memory, in bytes, that reading a file may take without being told otherwise."""

_MAX_PICKLE_BYTES = 64_000_000
"""Most that data.pkl may hold; the numbers lie beside it, so that it is small in any real file."""

_INSTRUCTION_BYTES = 64
"""What one instruction of a pickle is taken to make: a small value, or room for it elsewhere."""

_TENSOR_BYTES = 512
"""What a tensor takes beside its numbers, sizes and strides."""

_ZIP_MAGIC = b"PK"
_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_PROTOCOL = 1001
_BFLOAT16 = "bfloat16"  # NumPy has no such type: read as 2 bytes, widened to float32

_ELEMENT_OF_STORAGE = {
    "torch.BFloat16Storage": _BFLOAT16,
    "torch.BoolStorage": "?",
    "torch.ByteStorage": "u1",
    "torch.CharStorage": "i1",
    "torch.ComplexDoubleStorage": "c16",
    "torch.ComplexFloatStorage": "c8",
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.IntStorage": "i4",
    "torch.LongStorage": "i8",
    "torch.ShortStorage": "i2",
}

_KEY_TYPES = (str, bytes, int, float, type(None))

_ByteOrder = Literal["<", ">"]

_DAMAGE = (
    EOFError,
    LookupError,
    NotImplementedError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading and interpreting a broken file raises."""


def read_torch(path: str | Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """What torch.save wrote: plain containers, with NumPy arrays where the tensors were.

    Every tensor becomes a contiguous array of its own, bfloat16 is widened to float32. Devices,
    gradients, hooks and the versions of modules are dropped.

    Args:
        path: A file made by torch.save.
        max_bytes: Refuse files that would take more memory than this.

    Raises:
        UnsafePickleError: The file asks for something else than tensors in plain containers.
        WeightsError: The file is damaged, is not a PyTorch file, or takes more than max_bytes.
    """
    path = Path(path)
    budget = _Budget(max_bytes)
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        return _read_zip(path, budget) if is_zip else _read_stream(path, budget)
    except UnsafePickleError as error:
        raise UnsafePickleError(
            f"{path} {error}. Only tensors in plain containers are read, and nothing in it was "
            "executed. If you trust its author, ask for torch.save(model.state_dict(), path)."
        ) from None
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from None
    except _DAMAGE as error:
        raise WeightsError(
            f"{path} is damaged, or not a PyTorch file ({error}). Download it again and compare "
            "its size with the published one."
        ) from error


def read_torch_tensors(
    path: str | Path, *, max_bytes: int = MAX_BYTES
) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a file that holds one flat dictionary of them, by name.

    Args and errors are those of `read_torch`, which reads files of any other shape.
    """
    content = read_torch(path, max_bytes=max_bytes)
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}, expected a dictionary of tensors. "
            "Take what you need from read_torch(path)."
        )
    others = [
        reprlib.repr(name)
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, np.ndarray))
    ]
    if others:
        raise WeightsError(
            f"{path} holds more than tensors: {_shortened(others)}. "
            "Take the dictionary of tensors from read_torch(path)."
        )
    return dict(content)


@dataclass
class _Budget:
    """Memory that may still be taken, in bytes."""

    max_bytes: int
    taken_bytes: int = 0

    def take(self, num_bytes: int, what: str) -> None:
        self.taken_bytes += num_bytes
        if self.taken_bytes > self.max_bytes:
            raise WeightsError(
                f"takes more than {self.max_bytes} bytes of memory ({what} takes {num_bytes}). "
                "If that is what you expect of it, pass a larger max_bytes."
            )


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file that tensors look into."""

    key: str
    element: str
    num_elements: int


@dataclass(frozen=True)
class _Tensor:
    """An array that waits for its numbers: offset and strides are in elements of the storage."""

    array: npt.NDArray[Any]
    storage: _Storage
    offset: int
    strides: tuple[int, ...]


class _Name(str):
    """The name of a class or function that a pickle mentions. Nothing is ever imported."""

    __slots__ = ()


class _Interpreter:
    """Follows a pickle's instructions as far as a file of tensors needs them.

    Values on the stack are plain containers, numbers, strings, names, storages and arrays, so that
    no instruction can call into code that the file chose. Tensors are collected in `tensors`, the
    storages they look into in `storages`; their arrays hold no numbers until they are filled.
    """

    def __init__(self, budget: _Budget) -> None:
        self.tensors: list[_Tensor] = []
        self.storages: dict[str, _Storage] = {}
        self._budget = budget
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: io.BytesIO) -> Any:
        """The object that the pickle at the file's position describes."""
        self._stack, self._outer_stacks, self._memo = [], [], {}
        for name, argument in _instructions(file):
            self._budget.take(
                _INSTRUCTION_BYTES + sys.getsizeof(argument), "an instruction of its pickle"
            )
            if name in _PUSHED_ARGUMENTS:
                self._stack.append(argument)
            elif name in _PUSHED_CONSTANTS:
                self._stack.append(_PUSHED_CONSTANTS[name]())
            elif name in _TUPLE_LENGTHS:
                self._stack.append(tuple(self._popped(_TUPLE_LENGTHS[name])))
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            elif name not in _WITHOUT_EFFECT:
                named = "" if argument is None else f" of {argument}"
                raise UnsafePickleError(f"uses the pickle instruction {name}{named}")
        (result,) = self._stack
        return result

    def _popped(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise EOFError("its pickle takes more from the stack than there is")
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def _popped_to_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._outer_stacks.pop()
        return values

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise UnsafePickleError(
                f"fills a {type(self._stack[-1]).__name__} as if it were a {kind.__name__}"
            )
        return self._stack[-1]

    def _mark(self, _: Any) -> None:
        self._outer_stacks.append(self._stack)
        self._stack = []

    def _tuple(self, _: Any) -> None:
        values = self._popped_to_mark()
        self._stack.append(tuple(values))

    def _list(self, _: Any) -> None:
        values = self._popped_to_mark()
        self._stack.append(values)

    def _dict(self, _: Any) -> None:
        items = self._popped_to_mark()
        self._stack.append({})
        self._fill_top(items)

    def _append(self, _: Any) -> None:
        (value,) = self._popped(1)
        self._top(list).append(value)

    def _appends(self, _: Any) -> None:
        values = self._popped_to_mark()
        self._top(list).extend(values)

    def _set_item(self, _: Any) -> None:
        self._fill_top(self._popped(2))

    def _set_items(self, _: Any) -> None:
        items = self._popped_to_mark()
        self._fill_top(items)

    def _fill_top(self, items: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _KEY_TYPES):  # hashing a deeply nested tuple overflows C's stack
                raise UnsafePickleError(f"has the dictionary key {_described(key)}")
            target[key] = value

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _global(self, argument: str) -> None:
        self._stack.append(_allowed_name(argument))

    def _stack_global(self, _: Any) -> None:
        match self._popped(2):
            case [str() as module, str() as name]:
                self._stack.append(_allowed_name(f"{module}.{name}"))
            case names:
                raise UnsafePickleError(f"asks for {_described(names)}")

    def _reduce(self, _: Any) -> None:
        function, arguments = self._popped(2)
        if not (isinstance(function, _Name) and function in _MAKERS):
            raise UnsafePickleError(f"calls {_described(function)}")
        if not isinstance(arguments, tuple):
            raise UnsafePickleError(f"calls {function} with {_described(arguments)}")
        self._stack.append(_MAKERS[function](self, arguments))

    def _build(self, _: Any) -> None:
        (state,) = self._popped(1)
        # state_dict() hangs the versions of its modules on the dictionary as an attribute
        if not (
            type(self._stack[-1]) is OrderedDict
            and isinstance(state, dict)
            and set(state) <= {"_metadata"}
        ):
            raise UnsafePickleError(f"sets the state of {_described(self._stack[-1])} (BUILD)")

    def _persistent_id(self, _: Any) -> None:
        (identity,) = self._popped(1)
        match identity:
            case ("storage", _Name() as kind, str() as key, str(), int() as num_elements) | (
                "storage",
                _Name() as kind,
                str() as key,
                str(),
                int() as num_elements,
                None,
            ) if kind in _ELEMENT_OF_STORAGE and num_elements >= 0:
                storage = _Storage(key, _ELEMENT_OF_STORAGE[kind], num_elements)
                self.storages[key] = storage
                self._stack.append(storage)
            case _:
                raise UnsafePickleError(
                    f"refers to something that is not a storage: {_described(identity)}"
                )

    def _make_ordered_dict(self, arguments: tuple[Any, ...]) -> OrderedDict[Any, Any]:
        if arguments:
            raise UnsafePickleError("calls collections.OrderedDict with arguments")
        return OrderedDict()

    def _make_size(self, arguments: tuple[Any, ...]) -> tuple[int, ...]:
        match arguments:
            case (tuple() as size,):
                return size
        raise UnsafePickleError("calls torch.Size with something else than a tuple")

    def _make_parameter(self, arguments: tuple[Any, ...]) -> npt.NDArray[Any]:
        match arguments:
            case (np.ndarray() as array, bool(), _):
                return array
        raise UnsafePickleError("makes a parameter of something else than a tensor")

    def _make_tensor(self, arguments: tuple[Any, ...]) -> npt.NDArray[Any]:
        match arguments:
            case (_Storage() as storage, int() as offset, tuple() as size, tuple() as strides, *_):
                pass
            case _:
                raise UnsafePickleError(
                    "makes a tensor of something else than a storage, offset, size and strides"
                )
        shown = (
            f"a tensor of offset {offset}, size {_described(size)}, strides {_described(strides)}"
        )
        numbers = (offset, *size, *strides)
        if len(size) != len(strides) or not all(_is_count(number) for number in numbers):
            raise WeightsError(
                f"has {shown}, expected as many sizes as strides, all whole numbers from 0. "
                "Download it again."
            )
        furthest = offset + sum((n - 1) * stride for n, stride in zip(size, strides, strict=True))
        if 0 not in size and furthest >= storage.num_elements:
            raise WeightsError(
                f"has {shown} that reaches beyond the {storage.num_elements} numbers of its "
                f"storage {storage.key!r}. Download it again."
            )
        dtype = _dtype(storage.element)
        num_bytes = math.prod(size) * dtype.itemsize + _TENSOR_BYTES + 16 * len(size)
        self._budget.take(num_bytes, shown)
        array = np.empty(size, dtype)
        self.tensors.append(_Tensor(array, storage, offset, strides))
        return array


_ACTIONS: dict[str, Callable[[_Interpreter, Any], None]] = {
    "APPEND": _Interpreter._append,
    "APPENDS": _Interpreter._appends,
    "BINGET": _Interpreter._get,
    "BINPERSID": _Interpreter._persistent_id,
    "BINPUT": _Interpreter._put,
    "BUILD": _Interpreter._build,
    "DICT": _Interpreter._dict,
    "GLOBAL": _Interpreter._global,
    "LIST": _Interpreter._list,
    "LONG_BINGET": _Interpreter._get,
    "LONG_BINPUT": _Interpreter._put,
    "MARK": _Interpreter._mark,
    "MEMOIZE": _Interpreter._memoize,
    "REDUCE": _Interpreter._reduce,
    "SETITEM": _Interpreter._set_item,
    "SETITEMS": _Interpreter._set_items,
    "STACK_GLOBAL": _Interpreter._stack_global,
    "TUPLE": _Interpreter._tuple,
}

_PUSHED_ARGUMENTS = frozenset(
    (
        "BINBYTES",
        "BINBYTES8",
        "BINFLOAT",
        "BININT",
        "BININT1",
        "BININT2",
        "BINSTRING",
        "BINUNICODE",
        "BINUNICODE8",
        "LONG1",
        "LONG4",
        "SHORT_BINBYTES",
        "SHORT_BINSTRING",
        "SHORT_BINUNICODE",
    )
)

_PUSHED_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NEWFALSE": lambda: False,
    "NEWTRUE": lambda: True,
    "NONE": lambda: None,
}

_TUPLE_LENGTHS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_WITHOUT_EFFECT = frozenset(("PROTO", "FRAME", "STOP"))

_FOLLOWED = frozenset(
    (*_ACTIONS, *_PUSHED_ARGUMENTS, *_PUSHED_CONSTANTS, *_TUPLE_LENGTHS, *_WITHOUT_EFFECT)
)

_LINES = {"GLOBAL": 2, "INST": 2, "PERSID": 1}
"""Instructions whose argument is so many lines of text: a module and a name, or an id."""

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

_MAKERS: dict[str, Callable[[_Interpreter, tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _Interpreter._make_ordered_dict,
    "torch.Size": _Interpreter._make_size,
    "torch._utils._rebuild_parameter": _Interpreter._make_parameter,
    "torch._utils._rebuild_tensor": _Interpreter._make_tensor,
    "torch._utils._rebuild_tensor_v2": _Interpreter._make_tensor,
}
"""All that a pickle may call, and what happens instead."""


def _instructions(file: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """Name and argument of each instruction of the pickle at the file's position, up to STOP.

    Arguments of instructions that are not followed are left unread, except for what they name.
    """
    name = ""
    while name != "STOP":
        code = file.read(1)
        if not code:
            raise EOFError("its pickle ends too early")
        if code not in _OPCODES:
            raise UnsafePickleError(
                f"uses the unknown pickle instruction {code!r} at byte {file.tell() - 1}"
            )
        opcode = _OPCODES[code]
        name, argument = opcode.name, None
        if name in _LINES:
            argument = ".".join(_line(file) for _ in range(_LINES[name]))
        elif name in _FOLLOWED and opcode.arg is not None:
            argument = opcode.arg.reader(file)
        yield name, argument


def _line(file: io.BytesIO) -> str:
    line = file.readline()
    if not line.endswith(b"\n"):
        raise EOFError("its pickle ends too early")
    return line[:-1].decode()


def _allowed_name(name: str) -> _Name:
    if name not in _MAKERS and name not in _ELEMENT_OF_STORAGE:
        raise UnsafePickleError(f"asks for {name}")
    return _Name(name)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _described(value: Any) -> str:
    return value if isinstance(value, _Name) else reprlib.repr(value)


def _shortened(names: list[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _read_zip(path: Path, budget: _Budget) -> Any:
    """The layout since PyTorch 1.6: one pickle and one file for each storage, in a zip archive."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if PurePosixPath(name).name == "data.pkl"]
        if len(pickles) != 1:
            raise WeightsError(
                f"is a zip archive with {len(pickles)} files named data.pkl, expected one. "
                "Pass the file that torch.save wrote, as it is."
            )
        pickle_bytes = archive.getinfo(pickles[0]).file_size
        if pickle_bytes > _MAX_PICKLE_BYTES:
            raise WeightsError(
                f"has a data.pkl of {pickle_bytes} bytes, expected at most {_MAX_PICKLE_BYTES}. "
                "Ask its author for torch.save(model.state_dict(), path)."
            )
        folder = pickles[0].removesuffix("data.pkl")
        byte_order: _ByteOrder = "<"
        if f"{folder}byteorder" in names:
            byte_order = _byte_order(_entry(archive, f"{folder}byteorder", budget))
        interpreter = _Interpreter(budget)
        content = interpreter.run(io.BytesIO(_entry(archive, pickles[0], budget)))
        for key, tensors in _by_storage(interpreter.tensors).items():
            _fill(tensors, _entry(archive, f"{folder}data/{key}", budget), byte_order)
    return content


def _entry(archive: zipfile.ZipFile, name: str, budget: _Budget) -> bytes:
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise WeightsError(f"lacks its part {name!r}. Download it again.") from None
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise WeightsError(
            f"has the part {name!r} encrypted or compressed in a way that torch.save does not "
            "know. Pass the file that torch.save wrote, as it is."
        )
    budget.take(entry.file_size, f"its part {name!r}")
    try:
        with archive.open(entry) as file:
            # read() would unpack all that there is before it cuts it to the size that is stated
            return file.read(entry.file_size)
    except OSError as error:  # an entry that claims to start before the file
        raise WeightsError(
            f"has a part {name!r} that cannot be read ({error}). Download it again."
        ) from error


def _byte_order(text: bytes) -> _ByteOrder:
    orders: dict[bytes, _ByteOrder] = {b"little": "<", b"big": ">"}
    if text not in orders:
        raise WeightsError(f"has the byte order {text[:20]!r}, expected little or big.")
    return orders[text]


def _read_stream(path: Path, budget: _Budget) -> Any:
    """The layout before PyTorch 1.6: five pickles, then the storages, little-endian."""
    budget.take(path.stat().st_size, "the file itself")
    content_bytes = path.read_bytes()
    file = io.BytesIO(content_bytes)
    interpreter = _Interpreter(budget)
    if _first_object(file, interpreter) != _STREAM_MAGIC:
        raise WeightsError(
            f"is not a PyTorch file: it starts with {content_bytes[:16]!r}. Check that it is not "
            "a web page or a Git LFS pointer that was saved in the file's place."
        )
    protocol = interpreter.run(file)
    if protocol != _STREAM_PROTOCOL:
        raise WeightsError(f"has the protocol {protocol!r}, expected {_STREAM_PROTOCOL}.")
    interpreter.run(file)  # sizes of C types on the machine that wrote it: unused since 2017
    content = interpreter.run(file)
    keys = interpreter.run(file)
    numbers = _stream_storages(file, keys, interpreter.storages)
    for key, tensors in _by_storage(interpreter.tensors).items():
        if key not in numbers:
            raise WeightsError(f"lacks its storage {key!r}. Download it again.")
        _fill(tensors, numbers[key], "<")
    return content


def _first_object(file: io.BytesIO, interpreter: _Interpreter) -> Any:
    """What the file starts with; None if that is no pickle."""
    if file.getvalue()[:1] not in _OPCODES:
        return None
    try:
        return interpreter.run(file)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"is not a PyTorch file, and as a pickle it {error}") from None
    except _DAMAGE:
        return None


def _stream_storages(
    file: io.BytesIO, keys: Any, storages: dict[str, _Storage]
) -> dict[str, memoryview]:
    """The bytes of each storage: its length in elements as 8 bytes, then the elements."""
    content = file.getbuffer()
    position = file.tell()
    numbers = {}
    for key in keys:
        storage = storages[key]
        (num_elements,) = struct.unpack_from("<q", content, position)
        if num_elements != storage.num_elements:
            raise WeightsError(
                f"has {num_elements} numbers in its storage {key!r}, expected "
                f"{storage.num_elements}. Download it again."
            )
        start = position + 8
        position = start + num_elements * _element_bytes(storage.element)
        numbers[key] = content[start:position]
    return numbers


def _by_storage(tensors: list[_Tensor]) -> dict[str, list[_Tensor]]:
    grouped: dict[str, list[_Tensor]] = {}
    for tensor in tensors:
        grouped.setdefault(tensor.storage.key, []).append(tensor)
    return grouped


def _fill(tensors: list[_Tensor], numbers: bytes | memoryview, byte_order: _ByteOrder) -> None:
    """Puts a storage's numbers into the arrays that look into it."""
    for tensor in tensors:
        flat = _elements(numbers, tensor.storage, byte_order)
        # the interpreter has checked that offset, size and strides stay inside of the storage
        strides_bytes = [stride * flat.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(
            flat[tensor.offset :], tensor.array.shape, strides_bytes
        )
        np.copyto(tensor.array, view)


def _elements(
    numbers: bytes | memoryview, storage: _Storage, byte_order: _ByteOrder
) -> npt.NDArray[Any]:
    expected_bytes = storage.num_elements * _element_bytes(storage.element)
    if len(numbers) < expected_bytes:
        raise WeightsError(
            f"is truncated: its storage {storage.key!r} has {len(numbers)} bytes, expected "
            f"{expected_bytes}. Download it again."
        )
    numbers = numbers[:expected_bytes]
    if storage.element == _BFLOAT16:
        upper_halves = np.frombuffer(numbers, f"{byte_order}u2").astype(np.uint32)
        return (upper_halves << 16).view(np.float32)
    if storage.element == "?":
        return np.frombuffer(numbers, np.uint8) != 0
    return np.frombuffer(numbers, np.dtype(storage.element).newbyteorder(byte_order))


def _dtype(element: str) -> np.dtype[Any]:
    return np.dtype(np.float32 if element == _BFLOAT16 else element)


def _element_bytes(element: str) -> int:
    return 2 if element == _BFLOAT16 else np.dtype(element).itemsize
