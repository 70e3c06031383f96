import pytest
import torch

from course_lib.core import Budget, start


def test_budget_chooses():
    assert Budget("quick")(quick=60, full=4000) == 60 and Budget("full")(quick=60, full=4000) == 4000
    assert Budget("full").is_full and not Budget("quick").is_full
    with pytest.raises(ValueError, match="unknown budget 'fast'; choose one of quick, full"):
        Budget("fast")


def test_start_seeds_and_says_where_it_runs(capsys):
    lesson = start("quick", 7, "cpu")
    a = torch.rand(3)
    start("quick", 7, "cpu")
    assert torch.equal(a, torch.rand(3))
    assert (lesson.budget.name, lesson.seed, lesson.device) == ("quick", 7, torch.device("cpu"))
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("budget quick · seed 7 · CPU, ") and said.endswith(f"torch {torch.__version__}")


def test_generators_are_fresh_and_numbered(capsys):
    lesson = start("full", 3, "cpu")
    a, b, c = (torch.rand(4, generator=lesson.generator(offset)) for offset in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(c, torch.rand(4, generator=start("full", 4, "cpu").generator()))


@pytest.mark.parametrize("arguments", [("tiny", 0, "cpu"), ("quick", 0, "gpu"), ("quick", "x", "cpu")])
def test_start_refuses_what_it_does_not_know(arguments):
    with pytest.raises((ValueError, TypeError)):
        start(*arguments)
