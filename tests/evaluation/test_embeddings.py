"""Embeddings read from the files that people keep them in, and what is wrong with some of them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from circlet.errors import CircletError
from circlet.evaluation import read_embeddings
from circlet.evaluation.embeddings import label_numbers

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)
LABELS, CAMERAS = np.array([7, 7, -1, 0]), np.array([1, 2, 1, 2])


def write(folder: Path, kind: str) -> Path:
    path = folder / f"vectors.{kind}"
    if kind == "npz":
        np.savez(path, features=VECTORS, pids=LABELS, camids=CAMERAS)
    elif kind == "safetensors":
        tensors = {"embeddings": VECTORS, "labels": LABELS, "cameras": CAMERAS}
        save_file({name: torch.from_numpy(held) for name, held in tensors.items()}, path)
    else:
        rows = {"embedding": VECTORS.tolist(), "label": LABELS, "camera": CAMERAS}
        schema = {"embedding": pl.List(pl.Float32), "label": pl.Int64, "camera": pl.Int64}
        pl.DataFrame(rows, schema=schema).write_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["npz", "safetensors", "parquet"])
def test_every_format_gives_the_same(tmp_path: Path, kind: str) -> None:
    found = read_embeddings(write(tmp_path, kind))
    assert torch.equal(found.vectors, torch.from_numpy(VECTORS))
    assert found.labels is not None
    assert found.labels.tolist() == LABELS.tolist()
    assert found.cameras is not None
    assert found.cameras.tolist() == CAMERAS.tolist()
    assert found.roles is None


def test_bfloat16_of_safetensors_stays_what_it_is(tmp_path: Path) -> None:
    save_file({"embeddings": torch.ones(2, 3, dtype=torch.bfloat16)}, tmp_path / "half.safetensors")
    assert read_embeddings(tmp_path / "half.safetensors").vectors.dtype == torch.bfloat16


@pytest.mark.parametrize("text", ["a\nb\nb\nc\n", "a\nb\nb\nc", "a\r\nb\r\nb\r\nc\r\n\r\n"])
def test_labels_of_their_own_file(tmp_path: Path, text: str) -> None:
    np.save(tmp_path / "vectors.npy", VECTORS)
    (tmp_path / "labels.txt").write_bytes(text.encode())
    np.save(tmp_path / "labels.npy", LABELS)
    named = read_embeddings(tmp_path / "vectors.npy", labels=tmp_path / "labels.txt")
    assert named.labels is not None
    assert named.labels.tolist() == ["a", "b", "b", "c"]
    numbered = read_embeddings(tmp_path / "vectors.npy", labels=tmp_path / "labels.npy")
    assert numbered.labels is not None
    assert numbered.labels.tolist() == LABELS.tolist()
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(CircletError, match=r"labels.txt holds 2 labels, but .*vectors.npy 4 embeddings"):
        read_embeddings(tmp_path / "vectors.npy", labels=tmp_path / "labels.txt")


def test_vectors_of_npy_stay_in_the_file_and_the_file_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", VECTORS)
    before = (tmp_path / "vectors.npy").read_bytes()
    found = read_embeddings(tmp_path / "vectors.npy")
    found.vectors.zero_()
    assert (tmp_path / "vectors.npy").read_bytes() == before


def test_text_of_integers_keeps_its_meaning_and_other_text_is_numbered_together() -> None:
    first, second = label_numbers("labels", np.array(["0007", "-1"]), np.array(["0", "7"]))
    assert (first.tolist(), second.tolist()) == ([7, -1], [0, 7])
    first, second = label_numbers("labels", np.array(["b", "a"]), np.array(["c", "b"]))
    assert (first.tolist(), second.tolist()) == ([2, 1], [3, 2])
    with pytest.raises(CircletError, match="labels must be integers or text, but they are float64"):
        label_numbers("labels", np.array([0.5]))
    with pytest.raises(CircletError, match="integers on one side and text, such as 'bird'"):
        label_numbers("labels", np.array([1, 2]), np.array(["bird"]))


def test_what_is_wrong_with_a_file_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=VECTORS)
    np.savez(tmp_path / "short.npz", embeddings=VECTORS, labels=LABELS[:3])
    np.savez(tmp_path / "integers.npz", embeddings=LABELS)
    np.save(tmp_path / "flat.npy", VECTORS[0])
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object))
    np.savez(tmp_path / "objects.npz", embeddings=VECTORS, labels=np.array(["a", 1, "b", 2], dtype=object))
    (tmp_path / "broken.npz").write_bytes(b"no")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    (tmp_path / "broken.parquet").write_bytes(b"no")
    ragged = pl.DataFrame({"embeddings": [[1.0], [1.0, 2.0]]})
    ragged.write_parquet(tmp_path / "ragged.parquet")
    (tmp_path / "run").mkdir()
    for name, message in {
        "absent.npz": "there is no file",
        "vectors.csv": "must end in .npy, .npz, .parquet, .safetensors, .json, but it ends in '.csv'",
        "other.npz": "holds no embeddings: there should be 'embeddings' .* but there is 'x'",
        "short.npz": r"holds 4 embeddings, but its labels have shape \(3,\)",
        "integers.npz": "must be floats, but they are int64",
        "flat.npy": r"of shape \(items, dim\), but they are torch.float32 of shape \(3,\)",
        "pickled.npy": "can't be read",
        "broken.npz": "it is no npz file",
        "objects.npz": r"'labels': .* text is saved by labels.astype\(str\)",
        "broken.safetensors": "can't be read",
        "broken.parquet": "can't be read",
        "ragged.parquet": "lists in column 'embeddings' have different lengths",
        "run": "holds no embeddings.npz",
    }.items():
        with pytest.raises(CircletError, match=message):
            read_embeddings(tmp_path / name)
    np.save(tmp_path / "fine.npy", VECTORS)
    with pytest.raises(CircletError, match="there is no file of labels"):
        read_embeddings(tmp_path / "fine.npy", labels=tmp_path / "absent.txt")
