"""Noise schedules: published values, conventions, ends."""

import pytest
import torch

from course_lib.maths.schedules import Schedule, cosine_schedule, linear_schedule, spread


def test_linear_schedule_is_ddpms():
    schedule = linear_schedule()
    assert schedule.steps == 1000
    assert schedule.beta[1] == pytest.approx(1e-4) and schedule.beta[1000] == pytest.approx(0.02)
    # Ho 2020, section 4: the prior's KL is about 1e-5 bits per dimension, which needs ᾱ_T of about 4e-5
    assert schedule.alpha_bar[1000].item() == pytest.approx(4.04e-5, rel=1e-2)


def test_shorter_linear_schedules_reach_the_same_noise():
    assert linear_schedule(200).alpha_bar[-1].item() == pytest.approx(linear_schedule().alpha_bar[-1].item(), rel=0.3)


def test_cosine_schedule_is_its_formula_until_the_clip():
    schedule, t = cosine_schedule(1000), torch.arange(1001, dtype=torch.float64)
    f = (torch.pi / 2 * (t / 1000 + 0.008) / 1.008).cos().square()
    torch.testing.assert_close(schedule.alpha_bar[:999], (f / f[0])[:999])
    assert schedule.beta.max() == 0.999 and schedule.alpha_bar[-1] > 0


@pytest.mark.parametrize("schedule", [linear_schedule(50), cosine_schedule(50)], ids=["linear", "cosine"])
def test_tables(schedule):
    assert schedule.alpha_bar[0] == 1 and schedule.beta[0] == 0 and schedule.posterior_variance[:2].tolist() == [0, 0]
    assert (schedule.alpha_bar.diff() < 0).all() and (schedule.sigma().diff() > 0).all()
    for t in (2, 17, 50):
        torch.testing.assert_close(schedule.alpha_bar[t], (1 - schedule.beta[1 : t + 1]).prod())
        before, now = schedule.alpha_bar[t - 1], schedule.alpha_bar[t]
        torch.testing.assert_close(schedule.posterior_variance[t], (1 - before) / (1 - now) * schedule.beta[t])
        torch.testing.assert_close(schedule.snr()[t], schedule.sigma()[t] ** -2)


def test_lookup_broadcasts_in_the_pictures_precision():
    schedule, x = linear_schedule(50), torch.zeros(3, 1, 4, 4)
    beta, alpha, alpha_bar, before = schedule.at(torch.tensor([1, 2, 50]), x)
    assert {v.shape for v in (beta, alpha, alpha_bar, before)} == {(3, 1, 1, 1)}
    assert alpha_bar.dtype == torch.float32 and before.flatten()[0] == 1
    torch.testing.assert_close(before.flatten()[1].double(), schedule.alpha_bar[1], rtol=1e-6, atol=0)
    assert spread(torch.ones(3, dtype=torch.float64), x.bfloat16()).dtype == torch.bfloat16


def test_impossible_betas_are_refused():
    for betas in ([0.1, 0.0], [0.1, 1.0], [-0.1]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            Schedule(torch.tensor(betas))
    with pytest.raises(ValueError, match="between 0 and 1"):
        linear_schedule(10)


def test_it_moves_with_its_model_and_stays_out_of_its_weights():
    holder = torch.nn.ModuleDict({"schedule": linear_schedule(50)})
    assert not holder.state_dict()
    assert holder.to("meta")["schedule"].beta.device.type == "meta"
