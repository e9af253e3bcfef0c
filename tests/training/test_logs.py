"""Files that appear whole or not at all."""

import numpy as np
import pytest

from glfa_jax.training.logs import savez_atomically, write_atomically


def test_what_was_there_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / "arrays.npz"
    savez_atomically(path, a=np.arange(3), names=["x", "y"])
    before = path.read_bytes()

    class Spoilt:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise RuntimeError("cut short")

    with pytest.raises(RuntimeError, match="cut short"):
        savez_atomically(path, a=np.arange(4), b=Spoilt())
    assert path.read_bytes() == before
    with np.load(path) as arrays:
        assert {name: x.tolist() for name, x in arrays.items()} == {
            "a": [0, 1, 2],
            "names": ["x", "y"],
        }
    write_atomically(tmp_path / "text", "ä\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "text", "\ud800")
    assert (tmp_path / "text").read_bytes() == "ä\n".encode()
