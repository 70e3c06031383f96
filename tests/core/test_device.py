import os

import pytest
import torch

from course_lib.core.device import available_cores, describe_device, pick_device, thread_limit


def gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch):
    gpus(monkeypatch, 0)
    assert pick_device() == torch.device("cpu")
    gpus(monkeypatch, 2)
    assert pick_device("auto") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")  # under torchrun each process has its own
    assert pick_device("auto") == torch.device("cuda", 1)


def test_a_device_passes_through():
    assert pick_device(torch.device("meta")) == torch.device("meta")
    assert pick_device("cpu") == torch.device("cpu")


def test_mistakes_say_what_to_use(monkeypatch):
    with pytest.raises(ValueError, match="unknown device 'gpu'; use 'auto', 'cpu', 'cuda'"):
        pick_device("gpu")
    gpus(monkeypatch, 0)
    with pytest.raises(ValueError, match="sees no CUDA GPU; use 'auto' or 'cpu'"):
        pick_device("cuda")
    gpus(monkeypatch, 1)
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match="only 1 CUDA GPUs"):
        pick_device("cuda:1")


def test_the_description_is_for_people():
    threads = torch.get_num_threads()
    assert describe_device(torch.device("cpu")) == f"CPU, {threads} thread" + "s" * (threads > 1)


def test_cores_are_those_of_this_process():
    cores = available_cores()
    assert 1 <= cores <= os.cpu_count()
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(allowed)})
            assert available_cores() == 1
        finally:
            os.sched_setaffinity(0, allowed)
        assert available_cores() == cores


def test_thread_limit_names_every_library():
    assert thread_limit(2)["OMP_NUM_THREADS"] == thread_limit(2)["MKL_NUM_THREADS"] == "2"
    assert set(thread_limit(0).values()) == {"1"}


@pytest.mark.cuda
def test_the_gpu_is_described():
    assert describe_device(torch.device("cuda", 0)).startswith("CUDA ")
