"""Files of torch with a pickle of one's choice."""

import zipfile
from pathlib import Path


def archive(path: Path, content: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A file of torch around a pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/data.pkl", content)
        for key, values in (storages or {}).items():
            file.writestr(f"net/data/{key}", values)
    return path


def tensor(shape, strides, offset=0, key="0", kind="FloatStorage", held=4):
    """Operations that push a tensor."""

    def numbers(values):
        return b"(" + b"".join(b"L%dL\n" % value for value in values) + b"t"

    reference = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key)
    reference += text("cpu") + b"L%dL\nt" % held
    place = b"L%dL\n" % offset + numbers(shape) + numbers(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + b"Q" + place + b"\x89}tR"


def state(*tensors: bytes) -> bytes:
    """A pickle of a state dict with tensors named by number."""
    items = b"".join(b"X\1\0\0\0%c" % (97 + i) + one for i, one in enumerate(tensors))
    return b"\x80\2}(" + items + b"u."


def text(value: str) -> bytes:
    """Operations that push a text."""
    return b"X" + len(value).to_bytes(4, "little") + value.encode()
