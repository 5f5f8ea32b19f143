"""Files as torch.save writes them, made without PyTorch: by CPython's own pickler and zipfile."""

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from unittest import mock

import numpy as np

STREAM_MAGIC = 0x1950A86A20F9469CFC6C

_DTYPES = {
    "BoolStorage": "?",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ComplexFloatStorage": "c8",
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "ShortStorage": "i2",
}
_STORAGE_OF_DTYPE = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


class Storage:
    """A run of raw bytes that the file refers to by key."""

    def __init__(self, kind, raw, num_elements, key):
        self.kind, self.raw, self.num_elements, self.key = kind, raw, num_elements, str(key)


class Tensor:
    """What a tensor looks like to the pickler; strides and offset count elements."""

    def __init__(self, storage, size, strides, offset=0):
        self.arguments = (storage, offset, tuple(size), tuple(strides), False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


def tensor(array, key, byte_order="<"):
    """A contiguous tensor with a storage of its own."""
    array = np.asarray(array, order="C")
    raw = array.astype(array.dtype.newbyteorder(byte_order)).tobytes()
    storage = Storage(_STORAGE_OF_DTYPE[array.dtype], raw, array.size, key)
    strides = [stride // array.itemsize for stride in array.strides]
    return Tensor(storage, array.shape, strides)


def state_dict(arrays, byte_order="<"):
    """The arrays as torch.nn.Module.state_dict() hands them over, versions of modules included."""
    tensors = OrderedDict(
        (name, tensor(array, key, byte_order)) for key, (name, array) in enumerate(arrays.items())
    )
    tensors._metadata = OrderedDict({"": {"version": 1}})
    return tensors


def write_zip(path, content, *, protocol=2, byte_order=None, compression=zipfile.ZIP_STORED):
    """The layout of PyTorch 1.6 and later."""
    pickled, storages = _pickled(content, protocol, view=())
    parts = {"data.pkl": pickled, "version": b"3\n"}
    parts |= {f"data/{storage.key}": storage.raw for storage in storages}
    if byte_order is not None:
        parts["byteorder"] = byte_order
    write_zip_parts(path, parts, compression=compression)


def write_zip_parts(path, parts, *, compression=zipfile.ZIP_STORED):
    """An archive of these files, which may be anything."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, raw in parts.items():
            archive.writestr(f"weights/{name}", raw)


def write_stream(path, content, *, protocol=2):
    """The layout before PyTorch 1.6."""
    pickled, storages = _pickled(content, protocol, view=(None,))
    storages = sorted(storages, key=lambda storage: storage.key)
    raw = b"".join(struct.pack("<q", storage.num_elements) + storage.raw for storage in storages)
    keys = pickle.dumps([storage.key for storage in storages], protocol)
    path.write_bytes(stream_head(protocol) + pickled + keys + raw)


def stream_head(protocol=2):
    """The three pickles before the one that matters."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    return b"".join(pickle.dumps(part, protocol) for part in (STREAM_MAGIC, 1001, system))


def _pickled(content, protocol, view):
    storages = {}
    modules = _torch_modules()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            storages[value.key] = value
            kind = getattr(modules["torch"], value.kind)
            return ("storage", kind, value.key, "cpu", value.num_elements, *view)

    file = io.BytesIO()
    with mock.patch.dict(sys.modules, modules):
        Pickler(file, protocol).dump(content)
    return file.getvalue(), list(storages.values())


def _torch_modules():
    """Just enough of torch for the pickler to find the names that it writes."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in (*_DTYPES, "BFloat16Storage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*arguments):
        raise NotImplementedError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch._utils = utils
    return {"torch": torch, "torch._utils": utils}
