"""What a checkpoint may name, and what we put in its place: the containers that training scripts leave in their files.

Nothing is here for its own sake: torch's tensors with what holds them, numpy's numbers, dill's detours to both, and the
argument objects of command lines and configuration packages, of which only the contents are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from autolora.models.checkpoints.tensors import STORAGES, Array, ArrayType, Storage, StoredTensor, bytes_of, scalar
from autolora.pickles import Damaged, Name, Record, Refused, Vocabulary

__all__ = ["STORAGE_TYPES", "vocabulary"]

UNTYPED = "torch.storage.UntypedStorage"
STORAGE_TYPES: dict[str, torch.dtype] = {
    UNTYPED: torch.uint8,
    **{f"torch.{place}{name}Storage": dtype for name, dtype in STORAGES.items() for place in ("", "cuda.")},
}
DTYPES = {str(dtype): dtype for dtype in STORAGES.values()}  # by "torch.float32"

CONFIGURATIONS = {  # what holds the arguments of a training script
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "easydict": ("EasyDict",),
    "addict.addict": ("Dict",),
    "munch": ("Munch",),
    "cox.utils": ("Parameters",),
    "yacs.config": ("CfgNode",),
    "fvcore.common.config": ("CfgNode",),
    "mmcv.utils.config": ("ConfigDict",),
    "mmengine.config.config": ("ConfigDict",),
    "ml_collections.config_dict.config_dict": ("ConfigDict",),
    "pytorch_lightning.utilities.parsing": ("AttributeDict",),
    "lightning_fabric.utilities.data": ("AttributeDict",),
    "lightning.fabric.utilities.data": ("AttributeDict",),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.nodes": ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "PathNode", "EnumNode"),
}
PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
OTHERS = {
    "torch": ("device",),
    "torch.torch_version": ("TorchVersion",),
    "datetime": ("datetime", "timedelta", "date"),
    "pathlib": PATHS,
    "pathlib._local": PATHS,
}
KINDS = frozenset(f"{module}.{name}" for module, names in (CONFIGURATIONS | OTHERS).items() for name in names)
BUILTINS = ("int", "float", "complex", "bool", "str", "object")
WORDS = frozenset(
    {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in BUILTINS}
    | {f"numpy.{name}" for name in ("ndarray", "float64", "float32", "float16", "int64", "int32", "bool_")}
    | {"typing.Any", "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
    | {"pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"}
    | {"pytorch_lightning.callbacks.early_stopping.EarlyStopping"}
    | {*STORAGE_TYPES, *DTYPES}
)


def vocabulary(nested: Callable[[bytes], Any] | None = None) -> Vocabulary:
    """Return what a checkpoint may name.

    Args:
        nested: Reads the bytes of a file of torch's within the file; None if there may be none.
    """
    return Vocabulary(CALLS if nested is None else {**CALLS, "torch.storage._load_from_bytes": nested}, KINDS, WORDS)


def _rebuild_tensor(
    storage: Storage, offset: int, shape: Iterable[int], strides: Iterable[int], *_: Any
) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise Damaged("a tensor without numbers")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_tensor_v3(
    storage: Storage, offset: int, shape: Iterable[int], strides: Iterable[int], _: Any, __: Any, dtype: Name, *___: Any
) -> StoredTensor:
    tensor = _rebuild_tensor(storage, offset, shape, strides)
    return StoredTensor(tensor.storage, tensor.offset, tensor.shape, tensor.strides, DTYPES[dtype.dotted])


def _rebuild_from_type(function: Name, _: Any, args: tuple[Any, ...], *__: Any) -> Any:
    """Rebuild a tensor that has attributes, or is of a class of its own, as a plain one."""
    return {"torch._utils._rebuild_tensor_v2": _rebuild_tensor, **PARAMETERS}[function.dotted](*args)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _from_numpy(array: Array, *_: Any) -> Array:
    return array


def _filled(_: Any, __: Any, state: Any, *___: Any) -> Array:
    """Make an array as dill has it made: with its state at once."""
    array = Array()
    array.set_state(state)
    return array


def _pairs(*args: Any) -> dict[Any, Any]:
    """Make a dictionary from nothing, from pairs, or after a factory of defaults."""
    content = next((arg for arg in args if isinstance(arg, Mapping | list)), {})
    pairs = content.items() if isinstance(content, Mapping) else content
    return {key: value for key, value in pairs if isinstance(key, str | int | float)}


def _sequence(values: Iterable[Any] = (), *_: Any) -> list[Any]:
    return list(values)


def _size(values: Iterable[int] = ()) -> tuple[int, ...]:
    return tuple(values)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Return bytes, which pickles of the older protocols hold as text."""
    if encoding not in ("latin1", "latin-1"):
        raise Damaged(f"bytes as text in {encoding!r}")
    return text.encode("latin-1")


def _content(content: Any = b"", *_: Any) -> bytes:
    return bytes_of(content)


def _reconstructed(kind: Name, *_: Any) -> Record:
    """Keep an object that the oldest protocols make in this way."""
    if kind.dotted not in KINDS:
        raise Refused(kind.dotted)
    return Record(kind.dotted)


def _type(name: str) -> Name:
    """Return one of Python's own types, by dill's name for it; it can be mentioned, and not called."""
    return Name(f"types.{name}")


PARAMETERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch._utils._rebuild_device_tensor_from_numpy": _from_numpy,
    **PARAMETERS,
    "torch.Size": _size,
    **{f"numpy.{core}.multiarray._reconstruct": Array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": Array.from_buffer for core in ("core", "_core")},
    "numpy.dtype": ArrayType,
    **{f"dill.{module}._create_array": _filled for module in ("_dill", "dill")},
    **{f"dill.{module}._load_type": _type for module in ("_dill", "dill")},
    **dict.fromkeys(("collections.OrderedDict", "collections.defaultdict", "collections.Counter"), _pairs),
    "collections.deque": _sequence,
    **{f"{module}._reconstructor": _reconstructed for module in ("copyreg", "copy_reg")},
    "_codecs.encode": _encode,
    **{f"{module}.{name}": _content for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    **{f"{module}.dict": _pairs for module in ("builtins", "__builtin__")},
    **{
        f"{module}.{name}": _sequence
        for module in ("builtins", "__builtin__")
        for name in ("list", "tuple", "set", "frozenset")
    },
}
