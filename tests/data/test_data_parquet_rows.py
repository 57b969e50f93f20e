"""Parquet files: which are of which split; only what is asked for is read; no thread is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disk_formats import png, random_images, write_parquet

from connsearch.data import load_dataset
from connsearch.data.parquet_rows import ROWS, folder_rows
from connsearch.errors import DataError

LABELS = [0, 1] * 10


def write_rows(file: Path, columns: dict[str, Any], *, group: int = 1000) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file, row_group_size=group)
    return file


def cells(images: Any) -> list[dict[str, Any]]:
    return [{"bytes": png(image), "path": None} for image in images]


def pixels(data: Any) -> list[bytes]:
    return sorted(np.ascontiguousarray(x.permute(1, 2, 0).numpy()).tobytes() for x in data.images)


# ---- which files -----------------------------------------------------------------------------------------


def test_other_formats_in_the_folder_are_not_the_data_set(tmp_path: Path) -> None:
    images = random_images(20)
    root = write_parquet(tmp_path / "pets", {"train": (images, LABELS), "test": (images[:4], LABELS[:4])})
    for name in ("train", "train-more", "test"):
        (root / f"{name}.jsonl").write_text('{"img": "a.png", "label": 0}\n' * 3)
    data = load_dataset(str(root))
    assert (len(data.train) + len(data.val), len(data.test), data.class_names) == (20, 4, ("cat", "dog"))
    assert pixels(data.test) == sorted(image.tobytes() for image in images[:4])


def test_a_card_says_which_file_is_which_split_and_what_words_mean(tmp_path: Path) -> None:
    images, words = random_images(24), ["zebra", "ant"] * 12
    root = tmp_path / "zoo"
    for name, rows in (("first", slice(20)), ("second", slice(20, 24))):
        write_rows(root / f"{name}.parquet", {"image": cells(images[rows]), "label": words[rows]})
    (root / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train\n    path: first.parquet\n  - split: test\n    path: sec*.parquet\n"
        "dataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n"
        "      class_label:\n        names:\n          '0': zebra\n          '1': ant\n---\n# Animals\n"
    )
    data = load_dataset(str(root))
    assert data.class_names == ("zebra", "ant")
    assert (len(data.train) + len(data.val), data.test.labels.tolist()) == (20, [0, 1, 0, 1])
    write_rows(root / "second.parquet", {"image": cells(images[:2]), "label": ["zebra", "yak"]})
    with pytest.raises(DataError, match=r"zoo: test: cannot be read: .*yak"):
        load_dataset(f"parquet(path={root}, val=0.2)")


def test_what_the_library_says_is_told_of_the_folder(tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "pets", {"train": (random_images(20), LABELS)})
    (root / "README.md").write_text("---\nconfigs:\n- config_name: x\n  data_files: gone.parquet\n---\n")
    with pytest.raises(DataError, match=rf"^{root}: cannot be read: .*{root}/gone\.parquet"):
        load_dataset(str(root))


def test_files_of_a_split_follow_each_other(tmp_path: Path) -> None:
    images = random_images(700, height=2, width=2)
    labels = list(range(700))
    for number, rows in enumerate((slice(300), slice(300, 301), slice(301, 700))):
        columns = {"image": cells(images[rows]), "label": labels[rows]}
        write_rows(tmp_path / "data" / f"train-{number:05}-of-00003.parquet", columns, group=90)
    rows = folder_rows(tmp_path, "")["train"]
    assert len(rows) == 700
    batches = list(rows.batches(("label", "image")))
    assert max(len(numbers) for numbers, _ in batches) <= ROWS
    assert [number for numbers, _ in batches for number in numbers] == labels
    assert [cell["bytes"] for _, found in batches for cell in found] == [png(image) for image in images]


def test_a_file_without_the_column_is_named(tmp_path: Path) -> None:
    images = cells(random_images(20))
    write_rows(tmp_path / "train-0.parquet", {"image": images, "label": LABELS})
    write_rows(tmp_path / "train-1.parquet", {"image": images, "tag": LABELS})
    with pytest.raises(DataError, match=r"train-1\.parquet: cannot be read: .*label"):
        load_dataset(str(tmp_path))


# ---- what is read ----------------------------------------------------------------------------------------


def test_labels_and_numbers_of_rows_are_read_without_the_images(tmp_path: Path) -> None:
    """Images that cannot be read any more do not matter to them."""
    import pyarrow.parquet as pq

    file = write_rows(tmp_path / "train.parquet", {"image": cells(random_images(20)), "label": LABELS})
    chunk = pq.read_metadata(file).row_group(0).column(0)
    assert chunk.path_in_schema == "image.bytes"
    content = bytearray(file.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    file.write_bytes(content)
    rows = folder_rows(tmp_path, "")["train"]
    assert len(rows) == 20
    assert [x for (values,) in rows.batches(("label",)) for x in values] == LABELS
    with pytest.raises(DataError, match=r"train\.parquet: cannot be read: "):
        list(rows.batches(("image",)))


_THREADS = """\
import os, sys
from pathlib import Path
from connsearch.data.parquet_rows import folder_rows
rows = folder_rows(Path(sys.argv[1]), "")["train"]
before = len(os.listdir("/proc/self/task"))
batches = rows.batches(("image",))
next(batches)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux shows them")
def test_reading_starts_no_threads(tmp_path: Path) -> None:
    images = cells(random_images(2000, height=2, width=2))
    write_rows(tmp_path / "train.parquet", {"image": images, "label": LABELS * 100}, group=100)
    command = [sys.executable, "-c", _THREADS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


# ---- Ctrl-C ----------------------------------------------------------------------------------------------

_STOPPED = """\
import os, signal, sys
from connsearch.data import fill, load_dataset

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
seen, decode = [], fill._tried
def counted(*given):
    seen.append(1)
    if len(seen) == 1100:
        os.kill(os.getpid(), signal.SIGINT)
    return decode(*given)
fill._tried = counted
os.environ["CONNSEARCH_CACHE"] = sys.argv[2]
load_dataset(sys.argv[1])
"""


@pytest.mark.slow
def test_ctrl_c_while_decoding_ends_python_as_always(tmp_path: Path) -> None:
    images = cells(random_images(3000, height=32, width=32))
    root = tmp_path / "many"
    write_rows(root / "train.parquet", {"image": images, "label": LABELS * 150}, group=60)
    command = [sys.executable, "-c", _STOPPED, str(root)]
    started = [
        subprocess.Popen([*command, str(tmp_path / f"cache{k}")], stderr=subprocess.PIPE, text=True)
        for k in range(4)
    ]
    told = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [-signal.SIGINT] * 4, told
    assert all(each.endswith("KeyboardInterrupt\n") for each in told)
