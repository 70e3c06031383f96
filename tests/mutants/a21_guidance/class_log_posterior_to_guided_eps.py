"""Answers for class_log_posterior, measurement_score, classifier_guided, guided_eps."""

from __future__ import annotations

import math

import torch

from tests.mutants.a21_guidance.answers import answers


def _column(values, like):
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


# ---------------------------------------------------------------- class_log_posterior


@answers.second
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    # differences of squares need no ‖x‖², which is the same for every component; a class is a row of a 0/1 table
    precision = 1 / (tau * tau + sigma * sigma)
    joint = weights.log() + precision[:, None] * (x @ means.T - means.square().sum(1) / 2)
    member = torch.nn.functional.one_hot(class_of, classes).T.bool()
    parts = torch.where(member, joint[:, None], -math.inf).logsumexp(2)
    return parts - joint.logsumexp(1, keepdim=True)


def _joint(x, sigma, weights, means, tau, variance=None):
    """log w_k + log N(x; μ_k, variance) up to a constant."""
    variance = tau**2 + sigma.square() if variance is None else variance
    distance = (x.unsqueeze(1) - means).square().sum(2)
    return weights.log() - distance / (2 * variance).unsqueeze(1)


def _classes(joint, class_of, classes):
    component = joint.log_softmax(1)
    return torch.stack([component[:, class_of == y].logsumexp(1) for y in range(classes)], 1)


@answers.mutant("the clean classifier at the noisy x")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    return _classes(_joint(x, sigma, weights, means, tau, tau**2 + 0 * sigma), class_of, classes)


@answers.mutant("σ for σ²")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    return _classes(_joint(x, sigma, weights, means, tau, tau**2 + sigma), class_of, classes)


@answers.mutant("widths add, not variances")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    return _classes(_joint(x, sigma, weights, means, tau, (tau + sigma).square()), class_of, classes)


@answers.mutant("½ missing in the exponent")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    return _classes(_joint(x, sigma, weights, means, tau, (tau**2 + sigma.square()) / 2), class_of, classes)


@answers.mutant("standard deviation under the squared distance")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    return _classes(_joint(x, sigma, weights, means, tau, (tau**2 + sigma.square()).sqrt()), class_of, classes)


@answers.mutant("the first example's σ for the batch")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    return _classes(_joint(x, sigma[:1].expand_as(sigma), weights, means, tau), class_of, classes)


@answers.mutant("no weights")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    return _classes(_joint(x, sigma, torch.ones_like(weights), means, tau), class_of, classes)


@answers.mutant("weights where their logarithms belong")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    return _classes(_joint(x, sigma, weights.exp(), means, tau), class_of, classes)


@answers.mutant("classes taken as equally likely: p(x | y), normalized")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    total = torch.stack([weights[class_of == y].sum() for y in range(classes)])
    return _classes(_joint(x, sigma, weights / total[class_of], means, tau), class_of, classes)


@answers.mutant("not divided by p_σ(x): log p(x, y)")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    joint = _joint(x, sigma, weights, means, tau)
    return torch.stack([joint[:, class_of == y].logsumexp(1) for y in range(classes)], 1)


@answers.mutant("the best component of a class for their sum")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    component = _joint(x, sigma, weights, means, tau).log_softmax(1)
    return torch.stack([component[:, class_of == y].amax(1) for y in range(classes)], 1)


@answers.mutant("logarithms of a class's components added: their product")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    component = _joint(x, sigma, weights, means, tau).log_softmax(1)
    return torch.stack([component[:, class_of == y].sum(1) for y in range(classes)], 1)


@answers.mutant("probabilities, not their logarithms")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    return _classes(_joint(x, sigma, weights, means, tau), class_of, classes).exp()


@answers.mutant("normalized over the batch instead of the components")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    component = _joint(x, sigma, weights, means, tau).log_softmax(0)
    return torch.stack([component[:, class_of == y].logsumexp(1) for y in range(classes)], 1)


@answers.mutant("log of a sum of exponentials: −∞ far away")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    share = _joint(x, sigma, weights, means, tau).exp()
    parts = torch.stack([share[:, class_of == y].sum(1) for y in range(classes)], 1)
    return (parts / share.sum(1, keepdim=True)).log()


@answers.mutant("kept finite by adding 1e-6 before the logarithm")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    share = _joint(x, sigma, weights, means, tau).softmax(1)
    return torch.stack([(share[:, class_of == y].sum(1) + 1e-6).log() for y in range(classes)], 1)


@answers.mutant("detached: nothing to differentiate")
def class_log_posterior(x, sigma, weights, means, tau, class_of, classes):
    return _classes(_joint(x.detach(), sigma, weights, means, tau), class_of, classes)


# ---------------------------------------------------------------- measurement_score


@answers.second
def measurement_score(x, y, sigma, tau, rho):
    # the score of the noised posterior, less that of the noised prior
    prior, measured, noise = tau**2, rho**2, _column(sigma, x) ** 2
    center, spread = y * (prior / (prior + measured)), prior * measured / (prior + measured)
    return x / (prior + noise) - (x - center) / (spread + noise)


def _shrink(x, sigma, tau):
    noise = _column(sigma, x).square()
    return tau**2 / (tau**2 + noise), noise


@answers.mutant("the clean measurement at the noisy x: (y − x)/ρ²")
def measurement_score(x, y, sigma, tau, rho):
    return (y - x) / rho**2 if rho else (y - x) / _column(sigma, x).square()


@answers.mutant("noises added: (y − x)/(ρ² + σ²), as if the prior were flat")
def measurement_score(x, y, sigma, tau, rho):
    return (y - x) / (rho**2 + _column(sigma, x).square())


@answers.mutant("E[x_0 | x] in place, but the variance of x_0 given x left out")
def measurement_score(x, y, sigma, tau, rho):
    k, _ = _shrink(x, sigma, tau)
    return k * (y - k * x) / max(rho**2, 1e-9)


@answers.mutant("no chain rule: the gradient with respect to E[x_0 | x]")
def measurement_score(x, y, sigma, tau, rho):
    k, noise = _shrink(x, sigma, tau)
    return (y - k * x) / (rho**2 + k * noise)


@answers.mutant("x in place of E[x_0 | x]")
def measurement_score(x, y, sigma, tau, rho):
    k, noise = _shrink(x, sigma, tau)
    return k * (y - x) / (rho**2 + k * noise)


@answers.mutant("the score of the posterior: that of the prior not subtracted")
def measurement_score(x, y, sigma, tau, rho):
    k, noise = _shrink(x, sigma, tau)
    return k * (y - k * x) / (rho**2 + k * noise) - x / (tau**2 + noise)


@answers.mutant("the sign: away from the measurement")
def measurement_score(x, y, sigma, tau, rho):
    k, noise = _shrink(x, sigma, tau)
    return k * (k * x - y) / (rho**2 + k * noise)


@answers.mutant("σ for σ²")
def measurement_score(x, y, sigma, tau, rho):
    k, noise = _shrink(x, sigma.sqrt(), tau)
    return k * (y - k * x) / (rho**2 + k * noise)


@answers.mutant("ρ for ρ²")
def measurement_score(x, y, sigma, tau, rho):
    k, noise = _shrink(x, sigma, tau)
    return k * (y - k * x) / (rho + k * noise)


@answers.mutant("τ = 1, as in the lecture")
def measurement_score(x, y, sigma, tau, rho):
    k, noise = _shrink(x, sigma, 1.0)
    return k * (y - k * x) / (rho**2 + k * noise)


@answers.mutant("the first example's σ for the batch")
def measurement_score(x, y, sigma, tau, rho):
    k, noise = _shrink(x, sigma[:1], tau)
    return k * (y - k * x) / (rho**2 + k * noise)


@answers.mutant("σ as (b, 1): right for points, not for pictures")
def measurement_score(x, y, sigma, tau, rho):
    noise = sigma.square()[:, None]
    k = tau**2 / (tau**2 + noise)
    return k * (y - k * x) / (rho**2 + k * noise)


@answers.mutant("Var(x_0 | x) = τ²: the prior's")
def measurement_score(x, y, sigma, tau, rho):
    k, _ = _shrink(x, sigma, tau)
    return k * (y - k * x) / (rho**2 + tau**2)


@answers.mutant("half of it: a squared distance differentiated without its 2")
def measurement_score(x, y, sigma, tau, rho):
    k, noise = _shrink(x, sigma, tau)
    return k * (y - k * x) / (2 * (rho**2 + k * noise))


# ---------------------------------------------------------------- classifier_guided


@answers.second
def classifier_guided(x, sigma, denoised, log_prob, scale):
    at = x.detach().requires_grad_(True)
    with torch.set_grad_enabled(True):
        log_probs = log_prob(at, sigma)
    pull = torch.autograd.grad(log_probs, at, grad_outputs=torch.ones_like(log_probs))[0]
    weight = scale * torch.pow(sigma, 2)
    return torch.stack([d + w * g for d, w, g in zip(denoised.detach(), weight, pull, strict=True)])


def _pull(x, sigma, log_prob, reduce=torch.sum):
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        return torch.autograd.grad(reduce(log_prob(at, sigma)), at)[0]


@answers.mutant("no σ²")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return denoised + scale * _pull(x, sigma, log_prob)


@answers.mutant("σ for σ²")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return denoised + scale * _column(sigma, x) * _pull(x, sigma, log_prob)


@answers.mutant("away from the label")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return denoised - scale * _column(sigma, x).square() * _pull(x, sigma, log_prob)


@answers.mutant("1 + s for s")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return denoised + (1 + scale) * _column(sigma, x).square() * _pull(x, sigma, log_prob)


@answers.mutant("the gradient of the mean over the batch")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return denoised + scale * _column(sigma, x).square() * _pull(x, sigma, log_prob, torch.mean)


@answers.mutant("the gradient of the probability, not of its logarithm")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return denoised + scale * _column(sigma, x).square() * _pull(x, sigma, log_prob, lambda v: v.exp().sum())


@answers.mutant("the first example's σ for the batch")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return denoised + scale * sigma[0] ** 2 * _pull(x, sigma, log_prob)


@answers.mutant("σ² as (b, 1): right for points, not for pictures")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return denoised + scale * sigma.square()[:, None] * _pull(x, sigma, log_prob)


@answers.mutant("a gradient scaled to length one")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    pull = _pull(x, sigma, log_prob)
    return denoised + scale * _column(sigma, x).square() * pull / pull.norm()


@answers.mutant("the gradient at the denoised picture")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return denoised + scale * _column(sigma, x).square() * _pull(denoised, sigma, log_prob)


@answers.mutant("x in place of D(x, σ): one Langevin step, no denoising")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return x + scale * _column(sigma, x).square() * _pull(x, sigma, log_prob)


@answers.mutant("the scale on the denoiser, too")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    return (1 - scale) * denoised + scale * (denoised + _column(sigma, x).square() * _pull(x, sigma, log_prob)) * scale


@answers.mutant("gradients not switched on: fails inside no_grad")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    at = x.detach().clone().requires_grad_()
    (pull,) = torch.autograd.grad(log_prob(at, sigma).sum(), at)
    return denoised + scale * _column(sigma, x).square() * pull


@answers.mutant("backward(): gradients pile up in the classifier's parameters")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        log_prob(at, sigma).sum().backward()
    return denoised + scale * _column(sigma, x).square() * at.grad


@answers.mutant("x itself is made to require a gradient")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    with torch.enable_grad():
        x.requires_grad_()
        (pull,) = torch.autograd.grad(log_prob(x, sigma).sum(), x)
    return denoised + scale * _column(sigma, x).square() * pull


@answers.mutant("a graph is kept on what is returned")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        (pull,) = torch.autograd.grad(log_prob(at, sigma).sum(), at, create_graph=True)
        return denoised + scale * _column(sigma, x).square() * pull


@answers.mutant("the classifier is asked again for each example")
def classifier_guided(x, sigma, denoised, log_prob, scale):
    pull = torch.cat([_pull(x[i : i + 1], sigma[i : i + 1], log_prob) for i in range(len(x))])
    return denoised + scale * _column(sigma, x).square() * pull


# ---------------------------------------------------------------- guided_eps


@answers.second
def guided_eps(eps, gradient, alpha_bar, scale):
    weight = (scale * torch.sqrt(1 - alpha_bar)).type_as(eps)
    return eps - torch.einsum("b,b...->b...", weight, gradient)


@answers.mutant("plus: towards the noise")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps + scale * _column((1 - alpha_bar).sqrt(), eps) * gradient


@answers.mutant("√ missing")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - scale * _column(1 - alpha_bar, eps) * gradient


@answers.mutant("ᾱ for 1 − ᾱ")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - scale * _column(alpha_bar.sqrt(), eps) * gradient


@answers.mutant("σ for √(1 − ᾱ): right for the gradient with respect to x = x_t/√ᾱ")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - scale * _column((1 / alpha_bar - 1).sqrt(), eps) * gradient


@answers.mutant("√ᾱ too much: the chain rule used where none is needed")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - scale * _column((alpha_bar * (1 - alpha_bar)).sqrt(), eps) * gradient


@answers.mutant("no factor at all")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - scale * gradient


@answers.mutant("the scale left out")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - _column((1 - alpha_bar).sqrt(), eps) * gradient


@answers.mutant("1 + s for s")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - (1 + scale) * _column((1 - alpha_bar).sqrt(), eps) * gradient


@answers.mutant("the score: divided by √(1 − ᾱ)")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - scale * gradient / _column((1 - alpha_bar).sqrt(), eps)


@answers.mutant("the first example's ᾱ for the batch")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - scale * (1 - alpha_bar[0]).sqrt().to(eps.dtype) * gradient


@answers.mutant("ᾱ as (b, 1): right for points, not for pictures")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - scale * (1 - alpha_bar).sqrt().to(eps.dtype)[:, None] * gradient


@answers.mutant("the table's float64 leaks into the pictures")
def guided_eps(eps, gradient, alpha_bar, scale):
    return eps - scale * (1 - alpha_bar).sqrt().view(-1, *[1] * (eps.ndim - 1)) * gradient


@answers.mutant("a classifier-free mixture: (1 − s) ε")
def guided_eps(eps, gradient, alpha_bar, scale):
    return (1 - scale) * eps - scale * _column((1 - alpha_bar).sqrt(), eps) * gradient
