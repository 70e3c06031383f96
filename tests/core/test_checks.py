import math

import numpy as np
import pytest
import torch

from course_lib.core import checks as check
from course_lib.core.checks import CheckFailed, Ledger


def test_close_prints_both_numbers(capsys):
    check.close("half", 0.5, torch.tensor(0.5))
    assert capsys.readouterr().out == "✓ half: got 0.5, want 0.5, difference 0 (allowed 6e-06)\n"
    check.close("half", 0.52, 0.5, stderr=0.01)
    assert "= 2.0 s.e." in capsys.readouterr().out
    check.close("many", np.zeros((2, 3)), torch.zeros(2, 3))
    assert "6 values, largest difference 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("got", "want", "options"),
    [
        (1.0, 1.1, {}),
        (1.0, 1.0001, {}),
        (1.0, 1.06, {"stderr": 0.01}),
        (math.nan, 0.0, {}),
        (0.0, math.nan, {}),
        (math.inf, 0.0, {}),
        (torch.tensor([0.0, math.nan]), torch.zeros(2), {"atol": 10.0}),
        (torch.tensor([0.0, 2.0]), torch.tensor([0.0, 1.0]), {}),
        (torch.zeros(3), torch.zeros(2), {}),
        (torch.zeros(2, 1), torch.zeros(1, 2), {}),  # must not be broadcast to 2 × 2
    ],
)
def test_close_fails(got, want, options):
    with pytest.raises(CheckFailed, match="✗ name"):
        check.close("name", got, want, **options)


def test_tolerances():
    check.close("absolute", 1e-3, 0.0, atol=2e-3)
    check.close("relative", 1001.0, 1000.0, rtol=2e-3)
    check.close("standard errors", 1.049, 1.0, stderr=0.01)
    check.close("one against many", torch.full((4,), 2.0), 2.0)
    check.close("integers", 3, np.int64(3))
    with pytest.raises(CheckFailed):
        check.close("per value", torch.tensor([1.0, 1.4]), torch.ones(2), stderr=torch.tensor([1.0, 0.01]))


def test_the_worst_value_is_shown_with_its_place():
    got = torch.zeros(2, 3)
    got[1, 2] = 5.0
    with pytest.raises(CheckFailed, match=r"largest difference 5 .* at \[1, 2\]: got 5, want 0"):
        check.close("grid", got, torch.zeros(2, 3))


def test_a_hint_is_given_when_it_fails(capsys):
    with pytest.raises(CheckFailed, match="Likely cause: the ½ is missing; lecture 04, section 3"):
        check.close("KL", 1.0, 0.5, hint="the ½ is missing; lecture 04, section 3")
    check.close("KL", 0.5, 0.5, hint="not shown")
    assert "Likely" not in capsys.readouterr().out


def test_less_shape_true(capsys):
    check.less("loss", torch.tensor(0.3), 0.5)
    check.shape("samples", torch.zeros(2, 3), (2, 3))
    check.true("finite", torch.ones(3).isfinite())
    check.true("seen", True, "42 of 42")
    assert capsys.readouterr().out.splitlines() == [
        "✓ loss: 0.3 < 0.5", "✓ samples: (2, 3)", "✓ finite: true", "✓ seen: 42 of 42",
    ]  # fmt: skip
    failing = [
        lambda: check.less("n", 0.5, 0.5),
        lambda: check.less("n", math.nan, 0.5),
        lambda: check.shape("n", torch.zeros(2, 3), (3, 2)),
        lambda: check.true("n", False),
        lambda: check.true("n", torch.tensor([True, False])),
    ]
    for fails in failing:
        with pytest.raises(AssertionError, match="✗ n"):
            fails()


def test_ledger_of_a_true_derivation(capsys):
    ledger = Ledger("ELBO")
    ledger.line("(1) exact", -3.0)
    ledger.equal("(2) exact too", torch.tensor(-3.000001))
    ledger.equal("(3) Monte Carlo", -2.9, stderr=0.03)
    ledger.at_most("(4) bound", -4.0)
    ledger.at_least("(5) upper", -3.0)
    ledger.show()
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 6 and all(line.startswith("✓") for line in out[1:])
    assert "-4.000000" in out[4] and "-1" in out[4] and "exact" in out[4] and "0.03" in out[3]
    html = ledger._repr_html_()
    assert html.count("<tr>") == 6 and "✗" not in html


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ledger: ledger.equal("false step", 1.1),
        lambda ledger: ledger.equal("false step", 1.2, stderr=0.03),
        lambda ledger: ledger.equal("false step", math.nan),
        lambda ledger: ledger.at_most("false step", 1.01),
        lambda ledger: ledger.at_most("false step", math.nan),
        lambda ledger: ledger.at_least("false step", 0.99),
        lambda ledger: ledger.at_least("false step", 0.9, stderr=0.01),
    ],
)
def test_ledger_of_a_false_derivation(wrong, capsys):
    ledger = Ledger("derivation")
    ledger.line("(1)", 1.0)
    wrong(ledger)
    ledger.equal("last", 1.0)
    with pytest.raises(CheckFailed, match="✗ derivation: false step\n"):
        ledger.show()
    assert "✗  false step" in capsys.readouterr().out
    assert "✗" in ledger._repr_html_()


def test_ledger_used_wrongly():
    with pytest.raises(ValueError, match="start the ledger with"):
        Ledger("empty").equal("x", 1.0)
    with pytest.raises(ValueError, match="is empty"):
        Ledger("empty").show()
    ledger = Ledger("two references")
    ledger.line("a", 1.0)
    with pytest.raises(ValueError, match="has its reference line already"):
        ledger.line("b", 1.0)
    broken = Ledger("reference that is no number")
    broken.line("a", math.nan)
    with pytest.raises(CheckFailed):
        broken.show()


def test_a_check_detaches_what_it_compares():
    check.close("with gradient", torch.ones(2, requires_grad=True), torch.ones(2))
