"""PyTorch files are read to the bit without PyTorch, and nothing in them is ever executed."""

import copyreg
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from fakes.torch_files import (
    STREAM_MAGIC,
    Storage,
    Tensor,
    state_dict,
    stream_head,
    tensor,
    write_stream,
    write_zip,
    write_zip_parts,
)
from hypothesis import given
from hypothesis import strategies as st

from crossview import pickles
from crossview.errors import UnsafePickleError, WeightsError
from crossview.pickles import read_torch, read_torch_tensors

WRITERS = {"zip": write_zip, "stream": write_stream}


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def arrays_of_all_dtypes():
    rng = np.random.default_rng(0)
    values = rng.uniform(-100, 100, (3, 2))
    return {dtype: values.astype(dtype) for dtype in ("f8", "f4", "f2", "i8", "i4", "i2", "i1")} | {
        "u1": np.arange(6, dtype="u1"),
        "bool": np.array([True, False]),
        "complex": np.array([1 + 2j], "c8"),
        "scalar": np.array(7, "i8"),
        "empty": np.zeros((0, 4), "f4"),
    }


def storage(num_elements, key="0"):
    return Storage(
        "FloatStorage", np.arange(num_elements, dtype="<f4").tobytes(), num_elements, key
    )


# What is read


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_of_every_type_come_back_to_the_bit(write, path, protocol):
    arrays = arrays_of_all_dtypes()
    write(path, state_dict(arrays), protocol=protocol)
    tensors = read_torch_tensors(path)
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(tensors[name], array)


def test_big_endian_numbers_are_turned_around(path):
    arrays = arrays_of_all_dtypes()
    write_zip(path, state_dict(arrays, byte_order=">"), byte_order=b"big")
    tensors = read_torch_tensors(path)
    for name, array in arrays.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(tensors[name], array)


def test_bfloat16_is_widened_to_float32(write, path):
    # 0x3fc0 is sign 0, exponent 127, mantissa 1.1 in binary
    halves = Storage("BFloat16Storage", struct.pack("<2H", 0x3FC0, 0xC000), 2, "0")
    write(path, {"a": Tensor(halves, (2,), (1,))})
    values = read_torch_tensors(path)["a"]
    assert values.dtype == np.float32
    assert values.tolist() == [1.5, -2.0]


def test_strides_and_offset_are_in_elements(write, path):
    content = {"a": Tensor(storage(12), (2, 3), (1, 4), offset=1)}
    write(path, content)
    values = read_torch_tensors(path)["a"]
    assert values.tolist() == [[1, 5, 9], [2, 6, 10]]
    assert values.flags.c_contiguous


def test_tensors_that_share_a_storage_do_not_share_memory(write, path):
    shared = storage(4)
    write(path, {"a": Tensor(shared, (4,), (1,)), "b": Tensor(shared, (2,), (2,))})
    tensors = read_torch_tensors(path)
    tensors["a"][:] = -1
    assert tensors["b"].tolist() == [0, 2]


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    axes=st.randoms(use_true_random=False),
    step=st.integers(1, 3),
)
def test_any_strided_view_comes_back(tmp_path_factory, shape, axes, step):
    order = list(range(len(shape)))
    axes.shuffle(order)
    whole = np.arange(np.prod(shape) * step, dtype="f4").reshape(*shape[:-1], shape[-1] * step)
    view = whole[..., ::step].transpose(order)
    held = Storage("FloatStorage", whole.tobytes(), whole.size, "0")
    path = tmp_path_factory.mktemp("views") / "weights.pth"
    write_zip(path, {"a": Tensor(held, view.shape, [stride // 4 for stride in view.strides])})
    np.testing.assert_array_equal(read_torch_tensors(path)["a"], view)


def test_nested_containers_come_back_as_they_are(write, path):
    content = {"epoch": 3, "loss": 0.5, "best": None, "on": True, "model": {"w": [1, (2, "é")]}}
    write(path, {**content, "state": state_dict({"a": np.ones(2, "f4")})})
    read = read_torch(path)
    np.testing.assert_array_equal(read.pop("state")["a"], [1, 1])
    assert read == content


def test_a_file_of_more_than_tensors_names_what_else_it_holds(write, path):
    write(path, {"epoch": 3, "a": tensor(np.ones(2, "f4"), "0")})
    with pytest.raises(WeightsError, match=r"more than tensors: 'epoch'\. .*read_torch"):
        read_torch_tensors(path)
    write(path, [1, 2])
    with pytest.raises(WeightsError, match="holds a list, expected a dictionary"):
        read_torch_tensors(path)


def test_published_weights_hold_526_tensors(data_dir):
    tensors = read_torch_tensors(data_dir / "weights" / "espnetv2_s_2.0_city_1024x512.pth")
    assert len(tensors) == 526
    assert sum(array.size for array in tensors.values() if array.dtype == np.float32) == 814_284
    assert tensors["base_net.level1.conv.weight"].shape == (32, 3, 3, 3)


# What is refused: everything that could run


class Made:
    """Asks whoever unpickles it to make a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def hidden_in(layout, path, pickled):
    """Writes a file of the layout with this pickle where the tensors should be."""
    if layout == "zip":
        write_zip_parts(path, {"data.pkl": pickled})
    elif layout == "stream":
        path.write_bytes(stream_head() + pickled)
    else:
        path.write_bytes(pickled)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("layout", ["zip", "stream", "bare pickle"])
def test_a_call_in_the_pickle_is_refused_by_name_and_not_made(tmp_path, path, layout, protocol):
    folder = tmp_path / "made"
    pickled = pickle.dumps({"weight": Made(folder)}, protocol)
    hidden_in(layout, path, pickled)
    with pytest.raises(UnsafePickleError, match=f"{os.mkdir.__module__}.mkdir|PUT"):
        read_torch(path)
    assert not folder.exists()
    pickle.loads(pickled)  # the trap is live: Python's own unpickler steps into it
    assert folder.exists()


REFUSED = {
    "eval by GLOBAL": (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval"),
    "os.system by GLOBAL": (b"cos\nsystem\n(X\x04\x00\x00\x00truetR.", "os.system"),
    "Python 2's eval": (b"c__builtin__\neval\n.", "__builtin__.eval"),
    "exec by STACK_GLOBAL": (b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.", "builtins.exec"),
    "a method of an allowed class": (
        b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
        "collections.OrderedDict.fromkeys",
    ),
    "a name that is no string": (b"\x80\x04K\x01\x8c\x04exec\x93.", r"\[1, 'exec'\]"),
    "getattr": (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
    "torch's own loader": (b"ctorch\nload\n.", "torch.load"),
    "a module by GLOBAL": (b"ctorch.nn.modules.linear\nLinear\n)\x81.", "linear.Linear"),
    "INST": (b"(X\x04\x00\x00\x00trueios\nsystem\n.", "INST of os.system"),
    "OBJ": (b"(ccollections\nOrderedDict\no.", "OBJ"),
    "NEWOBJ": (b"ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
    "NEWOBJ_EX": (b"ccollections\nOrderedDict\n)}\x92.", "NEWOBJ_EX"),
    "EXT1": (b"\x82\xf0.", "EXT1"),
    "EXT2": (b"\x83\xf0\x00.", "EXT2"),
    "EXT4": (b"\x84\xf0\x00\x00\x00.", "EXT4"),
    "PERSID": (b"Pstorage\n.", "PERSID of storage"),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "REDUCE of a string": (
        b"X\x17\x00\x00\x00collections.OrderedDict)R.",
        "calls 'collections.OrderedDict'",
    ),
    "REDUCE of a storage class": (b"ctorch\nFloatStorage\n)R.", "calls torch.FloatStorage"),
    "REDUCE of a dictionary": (b"})R.", "calls {}"),
    "REDUCE without a tuple": (b"ccollections\nOrderedDict\n]R.", r"OrderedDict with \[\]"),
    "OrderedDict of something": (b"ccollections\nOrderedDict\n}\x85R.", "with arguments"),
    "BUILD of a dictionary": (b"}}b.", "BUILD"),
    "BUILD of attributes": (
        b"ccollections\nOrderedDict\n)R}X\x09\x00\x00\x00__class__K\x01sb.",
        "BUILD",
    ),
    "BUILD of slots": (b"ccollections\nOrderedDict\n)R}}\x86b.", "BUILD"),
    "SETITEM into a list": (b"]K\x01K\x01s.", "fills a list as if it were a dict"),
    "APPEND to a dictionary": (b"}K\x01a.", "fills a dict as if it were a list"),
    "a tuple as a key": (b"})K\x01s.", r"dictionary key \(\)"),
    "a persistent number": (b"K\x07Q.", "not a storage: 7"),
    "a persistent module": (
        b"(X\x06\x00\x00\x00moduleX\x01\x00\x00\x00ctQ.",
        r"not a storage: \('module', 'c'\)",
    ),
    "a storage of no class": (
        b"(X\x07\x00\x00\x00storageX\x01\x00\x00\x00cX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
        "not a storage",
    ),
    "a storage of a function": (
        b"(X\x07\x00\x00\x00storageccollections\nOrderedDict\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
        "not a storage",
    ),
    "a tensor of nothing": (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "makes a tensor of"),
    "a parameter of nothing": (b"ctorch._utils\n_rebuild_parameter\n)R.", "makes a parameter of"),
    "a size of nothing": (b"ctorch\nSize\n)R.", "torch.Size"),
    "an unknown instruction": (b"\x80\x02\xff.", r"unknown pickle instruction b'\\xff' at byte 2"),
}


@pytest.mark.parametrize(("pickled", "name"), REFUSED.values(), ids=REFUSED)
def test_what_tensors_never_need_is_refused_by_name(path, pickled, name):
    hidden_in("zip", path, pickled)
    with pytest.raises(UnsafePickleError, match=name):
        read_torch(path)


def test_a_registered_extension_is_refused_unread(tmp_path, path):
    folder = tmp_path / "made"
    copyreg.add_extension(os.mkdir.__module__, "mkdir", 0xF0)
    try:
        pickled = pickle.dumps(Made(folder), 2)
        assert b"\x82\xf0" in pickled
        hidden_in("zip", path, pickled)
        with pytest.raises(UnsafePickleError, match="EXT1"):
            read_torch(path)
    finally:
        copyreg.remove_extension(os.mkdir.__module__, "mkdir", 0xF0)
    assert not folder.exists()


def test_a_refusal_says_that_nothing_was_executed(path):
    hidden_in("zip", path, b"cos\nsystem\n.")
    with pytest.raises(
        UnsafePickleError, match=r"weights\.pth asks for os\.system.*executed.*ask for"
    ):
        read_torch(path)


def test_a_refusal_is_also_a_value_error(path):
    hidden_in("zip", path, b"cos\nsystem\n.")
    with pytest.raises(ValueError, match="asks for"):
        read_torch(path)


def test_a_million_nested_tuples_do_no_harm(path):
    hidden_in("zip", path, b"})" + b"\x85" * 1_000_000 + b"K\x01s.")
    with pytest.raises(UnsafePickleError, match="dictionary key"):
        read_torch(path)


# What is damaged


def test_a_zip_cut_short_is_damaged(path):
    write_zip(path, state_dict(arrays_of_all_dtypes()))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(WeightsError, match=r"is damaged, or not a PyTorch file.*Download it again"):
        read_torch(path)


def test_a_stream_cut_short_is_truncated(path):
    write_stream(path, state_dict({"a": np.ones(100, "f4")}))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(
        WeightsError, match="truncated: its storage '0' has 360 bytes, expected 400"
    ):
        read_torch(path)


def test_a_flipped_bit_in_a_zip_is_damage(path):
    write_zip(path, state_dict({"a": np.full(100, 7, "f4")}))
    content = bytearray(path.read_bytes())
    content[content.index(np.full(100, 7, "f4").tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="Bad CRC-32"):
        read_torch(path)


def test_a_missing_storage_is_named(path):
    write_zip(path, state_dict({"a": np.ones(2, "f4")}))
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("weights/data.pkl")
    write_zip_parts(path, {"data.pkl": pickled})
    with pytest.raises(WeightsError, match="lacks its part 'weights/data/0'"):
        read_torch(path)


def test_a_stream_without_a_storage_names_it(path):
    write_stream(path, state_dict({"a": np.ones(2, "f4")}))
    whole = path.read_bytes()
    keys = pickle.dumps(["0"], 2)
    path.write_bytes(whole[: whole.index(keys)] + pickle.dumps([], 2))
    with pytest.raises(WeightsError, match="lacks its storage '0'"):
        read_torch(path)


def test_a_storage_with_too_few_bytes_is_truncated(path):
    short = Storage("FloatStorage", b"\0" * 12, 4, "0")
    write_zip(path, {"a": Tensor(short, (4,), (1,))})
    with pytest.raises(WeightsError, match="storage '0' has 12 bytes, expected 16"):
        read_torch(path)


@pytest.mark.parametrize(
    ("size", "strides", "offset", "message"),
    [
        ((5,), (1,), 0, "reaches beyond the 4 numbers"),
        ((4,), (1,), 1, "reaches beyond the 4 numbers"),
        ((2, 2), (3, 1), 0, "reaches beyond the 4 numbers"),
        ((2,), (-1,), 1, "whole numbers from 0"),
        ((-2,), (1,), 0, "whole numbers from 0"),
        ((2,), (1,), -1, "whole numbers from 0"),
        ((2, 2), (1,), 0, "as many sizes as strides"),
        ((2.0,), (1,), 0, "whole numbers from 0"),
        ((2**70,), (0,), 0, "whole numbers from 0"),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(path, size, strides, offset, message):
    write_zip(path, {"a": Tensor(storage(4), size, strides, offset)})
    with pytest.raises(WeightsError, match=message):
        read_torch(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"P", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n"],
    ids=["nothing", "one byte", "a web page", "a Git LFS pointer"],
)
def test_a_file_that_is_no_pytorch_file_says_so(path, content):
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"is not a PyTorch file: it starts with b'.*web page"):
        read_torch(path)


def test_a_plain_pickle_of_numbers_is_no_pytorch_file(path):
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError, match="is not a PyTorch file"):
        read_torch(path)


def test_another_protocol_of_the_stream_is_named(path):
    path.write_bytes(pickle.dumps(STREAM_MAGIC, 2) + pickle.dumps(1002, 2))
    with pytest.raises(WeightsError, match="protocol 1002, expected 1001"):
        read_torch(path)


def test_a_zip_without_a_pickle_is_no_weights_file(path):
    write_zip_parts(path, {"readme.txt": b"hello"})
    with pytest.raises(WeightsError, match=r"0 files named data\.pkl, expected one"):
        read_torch(path)


def test_an_odd_byte_order_is_refused(path):
    write_zip(path, state_dict({"a": np.ones(2, "f4")}), byte_order=b"middle")
    with pytest.raises(WeightsError, match=r"byte order b'middle', expected little or big"):
        read_torch(path)


def test_a_zip_bomb_is_refused_by_a_limit_that_can_be_raised(path):
    zeros = np.zeros(1_000_000, "f4")
    write_zip(path, state_dict({"a": zeros}), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    with pytest.raises(WeightsError, match=r"more than 5000000 bytes.*pass a larger max_bytes"):
        read_torch(path, max_bytes=5_000_000)
    assert read_torch_tensors(path, max_bytes=9_000_000)["a"].shape == zeros.shape


@pytest.mark.parametrize(
    "instructions",
    [pickle.EMPTY_DICT * 100_000, pickle.MARK * 100_000, pickle.NONE + pickle.MEMOIZE * 100_000],
)
def test_what_a_small_pickle_makes_counts_against_the_limit(path, instructions):
    write_zip_parts(
        path, {"data.pkl": b"\x80\x04" + instructions}, compression=zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 1000
    with pytest.raises(
        WeightsError, match=r"more than 5000000 bytes.*an instruction of its pickle"
    ):
        read_torch(path, max_bytes=5_000_000)


def test_a_pickle_is_refused_unread_where_it_is_larger_than_any_real_one(path, monkeypatch):
    monkeypatch.setattr(pickles, "_MAX_PICKLE_BYTES", 1000)
    write_zip_parts(path, {"data.pkl": pickle.NONE * 1001})
    with pytest.raises(WeightsError, match=r"data\.pkl of 1001 bytes, expected at most 1000\."):
        read_torch(path)


def test_a_part_that_states_too_small_a_size_is_not_unpacked_as_a_whole(path):
    part = np.zeros(20_000_000, "u1").tobytes()
    write_zip_parts(path, {"data.pkl": part}, compression=zipfile.ZIP_DEFLATED)
    stated = struct.pack("<I", len(part))
    path.write_bytes(path.read_bytes().replace(stated, struct.pack("<I", 1000)))
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError):
            read_torch(path, max_bytes=100_000)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_tensor_that_repeats_one_number_forever_is_refused_before_memory_is_taken(write, path):
    write(path, {"a": Tensor(storage(1), (10**6, 10**6), (0, 0))})
    with pytest.raises(WeightsError, match="takes more than 4000000000 bytes"):
        read_torch(path)


@given(
    position=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
    layout=st.sampled_from(list(WRITERS)),
)
def test_whatever_byte_is_wrong_the_answer_is_tensors_or_a_weights_error(
    tmp_path_factory, position, value, layout
):
    path = tmp_path_factory.mktemp("fuzz") / "weights.pth"
    WRITERS[layout](path, state_dict({"a": np.ones(2, "f4"), "b": np.arange(3)}))
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] = value
    path.write_bytes(content)
    try:
        content = read_torch(path)
    except WeightsError:
        return
    assert isinstance(content, OrderedDict)
