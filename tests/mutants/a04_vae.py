"""Answers to assignment a04_vae: plausible mistakes, and a second correct solution of every part."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from course_lib.autoencoders.likelihood import Bernoulli
from course_lib.maths.gaussian import kl_to_standard_normal
from tests.mutants.registry import Answers

answers = Answers("a04_vae")

# ---------------------------------------------------------------- kl_closed_form


@answers.second
def kl_closed_form(mean, log_var):
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    q = torch.distributions.Normal(mean, torch.exp(log_var / 2))
    return torch.distributions.kl_divergence(q, p).sum(dim=1)


@answers.mutant("lost the one half")
def kl_closed_form(mean, log_var):
    return -(1 + log_var - mean**2 - log_var.exp()).sum(-1)


@answers.mutant("squares the variance once more, as the slides do")
def kl_closed_form(mean, log_var):
    return -0.5 * (1 + log_var - mean**2 - log_var.exp() ** 2).sum(-1)


@answers.mutant("sign flipped: the term as the ELBO has it")
def kl_closed_form(mean, log_var):
    return 0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(-1)


@answers.mutant("mean over latent dimensions")
def kl_closed_form(mean, log_var):
    return -0.5 * (1 + log_var - mean**2 - log_var.exp()).mean(-1)


@answers.mutant("sums over the batch instead of the latent axis")
def kl_closed_form(mean, log_var):
    return -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(0)


@answers.mutant("KL(p ‖ q) instead of KL(q ‖ p)")
def kl_closed_form(mean, log_var):
    return 0.5 * (log_var - 1 + (1 + mean**2) * (-log_var).exp()).sum(-1)


@answers.mutant("takes log_var for log σ")
def kl_closed_form(mean, log_var):
    return -0.5 * (1 + 2 * log_var - mean**2 - (2 * log_var).exp()).sum(-1)


# ---------------------------------------------------------------- reparameterize


@answers.second
def reparameterize(mean, log_var, noise):
    return torch.addcmul(mean, noise, torch.sqrt(torch.exp(log_var)))


@answers.mutant("σ = exp(log σ²)")
def reparameterize(mean, log_var, noise):
    return mean + log_var.exp() * noise


@answers.mutant("detaches the mean")
def reparameterize(mean, log_var, noise):
    return mean.detach() + (0.5 * log_var).exp() * noise


@answers.mutant("σ under no_grad")
def reparameterize(mean, log_var, noise):
    with torch.no_grad():
        sigma = (0.5 * log_var).exp()
    return mean + sigma * noise


@answers.mutant("draws from torch.normal, without a gradient")
def reparameterize(mean, log_var, noise):
    return torch.normal(mean.detach(), (0.5 * log_var).exp().detach())


@answers.mutant("draws its own noise")
def reparameterize(mean, log_var, noise):
    return mean + (0.5 * log_var).exp() * torch.randn_like(mean)


@answers.mutant("changes the noise in place")
def reparameterize(mean, log_var, noise):
    noise.mul_((0.5 * log_var).exp().detach())
    return mean + noise


# ---------------------------------------------------------------- bernoulli_log_prob


@answers.second
def bernoulli_log_prob(logits, x):
    return -F.softplus(-x * logits).flatten(1).sum(1)


@answers.mutant("sigmoid, then log")
def bernoulli_log_prob(logits, x):
    p = logits.sigmoid()
    return torch.where(x > 0, p.log(), (1 - p).log()).sum((1, 2, 3))


@answers.mutant("sigmoid, then log of a clamped probability")
def bernoulli_log_prob(logits, x):
    p = logits.sigmoid().clamp(1e-6, 1 - 1e-6)
    return torch.where(x > 0, p.log(), (1 - p).log()).sum((1, 2, 3))


@answers.mutant("±1 used as 0/1 target")
def bernoulli_log_prob(logits, x):
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2, 3))


@answers.mutant("mean over pixels")
def bernoulli_log_prob(logits, x):
    return F.logsigmoid(x * logits).mean((1, 2, 3))


@answers.mutant("sign flipped: the cross-entropy")
def bernoulli_log_prob(logits, x):
    return -F.logsigmoid(x * logits).sum((1, 2, 3))


# ---------------------------------------------------------------- negative_elbo


def _parts(encoder, decoder, x, generator):
    """(log p(x|z), KL) of each picture, right."""
    mean, log_var = encoder(x)
    z = mean + (log_var / 2).exp() * torch.randn(mean.shape, generator=generator)
    return Bernoulli().log_prob(decoder(z), x), kl_to_standard_normal(mean, log_var)


@answers.second
def negative_elbo(encoder, decoder, x, generator):
    mean, log_var = encoder(x)
    noise = torch.empty_like(mean).normal_(generator=generator)
    logits = decoder(mean + noise * torch.exp(log_var / 2))
    cross_entropy = F.binary_cross_entropy_with_logits(logits, (x > 0).to(logits.dtype), reduction="sum")
    kl = 0.5 * (mean.pow(2) + log_var.exp() - log_var - 1).sum()
    return (cross_entropy + kl) / x.shape[0]


@answers.mutant("returns the ELBO: maximizes the loss")
def negative_elbo(encoder, decoder, x, generator):
    log_likelihood, kl = _parts(encoder, decoder, x, generator)
    return (log_likelihood - kl).mean()


@answers.mutant("KL added to the log-likelihood")
def negative_elbo(encoder, decoder, x, generator):
    log_likelihood, kl = _parts(encoder, decoder, x, generator)
    return -(log_likelihood + kl).mean()


@answers.mutant("mean over pixels for the likelihood, sum for the KL")
def negative_elbo(encoder, decoder, x, generator):
    log_likelihood, kl = _parts(encoder, decoder, x, generator)
    return (kl - log_likelihood / x[0].numel()).mean()


@answers.mutant("sum over the batch")
def negative_elbo(encoder, decoder, x, generator):
    log_likelihood, kl = _parts(encoder, decoder, x, generator)
    return (kl - log_likelihood).sum()


@answers.mutant("no KL: an autoencoder")
def negative_elbo(encoder, decoder, x, generator):
    log_likelihood, _ = _parts(encoder, decoder, x, generator)
    return -log_likelihood.mean()


@answers.mutant("decodes the mean instead of a sample")
def negative_elbo(encoder, decoder, x, generator):
    mean, log_var = encoder(x)
    return (kl_to_standard_normal(mean, log_var) - Bernoulli().log_prob(decoder(mean), x)).mean()


@answers.mutant("noise from the global generator")
def negative_elbo(encoder, decoder, x, generator):
    log_likelihood, kl = _parts(encoder, decoder, x, None)
    return (kl - log_likelihood).mean()


@answers.mutant("one noise vector for the whole batch")
def negative_elbo(encoder, decoder, x, generator):
    mean, log_var = encoder(x)
    z = mean + (log_var / 2).exp() * torch.randn(1, mean.shape[1], generator=generator)
    return (kl_to_standard_normal(mean, log_var) - Bernoulli().log_prob(decoder(z), x)).mean()


@answers.mutant("detaches the code before the decoder")
def negative_elbo(encoder, decoder, x, generator):
    mean, log_var = encoder(x)
    z = mean + (log_var / 2).exp() * torch.randn(mean.shape, generator=generator)
    return (kl_to_standard_normal(mean, log_var) - Bernoulli().log_prob(decoder(z.detach()), x)).mean()


# ---------------------------------------------------------------- Encoder


@answers.second
class Encoder(nn.Module):
    """One head of double width, cut in two, with another nonlinearity."""

    def __init__(self, pixels, hidden, latent):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(pixels, hidden), nn.Linear(hidden, hidden)])
        self.head = nn.Linear(hidden, 2 * latent)

    def forward(self, x):
        h = x.reshape(x.shape[0], -1)
        for layer in self.layers:
            h = torch.tanh(layer(h))
        return torch.tensor_split(self.head(h), 2, dim=1)


class _Right(nn.Module):
    """The right encoder, for mutants that change one thing."""

    nonlinearity = nn.ReLU

    def __init__(self, pixels, hidden, latent):
        super().__init__()
        f = self.nonlinearity
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), f(), nn.Linear(hidden, hidden), f())
        self.mean, self.log_var = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def forward(self, x):
        h = self.trunk(x)
        return self.mean(h), self.log_var(h)


@answers.mutant("one head for both")
class Encoder(_Right):
    def forward(self, x):
        h = self.trunk(x)
        return self.mean(h), self.mean(h)


@answers.mutant("ReLU after the log-variance head")
class Encoder(_Right):
    def forward(self, x):
        mean, log_var = super().forward(x)
        return mean, log_var.relu()


@answers.mutant("returns σ, not log σ²")
class Encoder(_Right):
    def forward(self, x):
        mean, log_var = super().forward(x)
        return mean, (0.5 * log_var).exp()


@answers.mutant("returns one concatenated tensor")
class Encoder(_Right):
    def forward(self, x):
        return torch.cat(super().forward(x), 1)


@answers.mutant("returns a sample, not the mean")
class Encoder(_Right):
    def forward(self, x):
        mean, log_var = super().forward(x)
        return mean + (0.5 * log_var).exp() * torch.randn_like(mean), log_var


@answers.mutant("no nonlinearity")
class Encoder(_Right):
    nonlinearity = nn.Identity


@answers.mutant("layers in a plain list: not registered")
class Encoder(nn.Module):
    def __init__(self, pixels, hidden, latent):
        super().__init__()
        self.layers = [nn.Linear(pixels, hidden), nn.Linear(hidden, hidden)]
        self.heads = [nn.Linear(hidden, latent), nn.Linear(hidden, latent)]

    def forward(self, x):
        h = x.flatten(1)
        for layer in self.layers:
            h = layer(h).relu()
        return self.heads[0](h), self.heads[1](h)


@answers.mutant("centres the features over the batch")
class Encoder(_Right):
    def forward(self, x):
        h = self.trunk(x)
        h = h - h.mean(0)
        return self.mean(h), self.log_var(h)


# ---------------------------------------------------------------- training_step


@answers.second
def training_step(model, optimizer, x):
    params = [p for group in optimizer.param_groups for p in group["params"]]
    loss = model.loss(x)
    for parameter, gradient in zip(params, torch.autograd.grad(loss, params), strict=True):
        parameter.grad = gradient
    optimizer.step()
    return float(loss.detach())


@answers.mutant("no zero_grad")
def training_step(model, optimizer, x):
    loss = model.loss(x)
    loss.backward()
    optimizer.step()
    return loss.item()


@answers.mutant("zero_grad only after the step: an earlier gradient counts")
def training_step(model, optimizer, x):
    loss = model.loss(x)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@answers.mutant("zero_grad between backward and step")
def training_step(model, optimizer, x):
    loss = model.loss(x)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@answers.mutant("step before backward")
def training_step(model, optimizer, x):
    loss = model.loss(x)
    optimizer.zero_grad()
    optimizer.step()
    loss.backward()
    return loss.item()


@answers.mutant("returns the tensor with its graph")
def training_step(model, optimizer, x):
    loss = model.loss(x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@answers.mutant("returns the loss after the update")
def training_step(model, optimizer, x):
    optimizer.zero_grad()
    model.loss(x).backward()
    optimizer.step()
    return model.loss(x).item()


@answers.mutant("computes the loss twice")
def training_step(model, optimizer, x):
    before = model.loss(x).item()
    optimizer.zero_grad()
    model.loss(x).backward()
    optimizer.step()
    return before


# ---------------------------------------------------------------- sample


@answers.second
def sample(decoder, n, latent, generator):
    z = torch.empty(n, latent, device=generator.device).normal_(generator=generator)
    p = torch.sigmoid(decoder(z)).detach()
    return p * 2 - 1


@answers.mutant("P(+1) in [0, 1] instead of the mean in [−1, 1]")
def sample(decoder, n, latent, generator):
    return decoder(torch.randn(n, latent, generator=generator)).sigmoid()


@answers.mutant("tanh(a) instead of tanh(a/2)")
def sample(decoder, n, latent, generator):
    return decoder(torch.randn(n, latent, generator=generator)).tanh()


@answers.mutant("uniform codes with the right mean and variance")
def sample(decoder, n, latent, generator):
    z = (torch.rand(n, latent, generator=generator) - 0.5) * math.sqrt(12)
    return torch.tanh(decoder(z) / 2)


@answers.mutant("seeds the global generator")
def sample(decoder, n, latent, generator):
    torch.manual_seed(generator.initial_seed())
    return torch.tanh(decoder(torch.randn(n, latent)) / 2)


@answers.mutant("one code for all pictures")
def sample(decoder, n, latent, generator):
    z = torch.randn(1, latent, generator=generator).expand(n, latent)
    return torch.tanh(decoder(z) / 2)


@answers.mutant("draws binary pixels instead of the mean picture")
def sample(decoder, n, latent, generator):
    p = decoder(torch.randn(n, latent, generator=generator)).sigmoid()
    return 2 * torch.bernoulli(p, generator=generator) - 1


# ---------------------------------------------------------------- iwae_bound


@answers.second
def iwae_bound(log_weights):
    largest = log_weights.amax(dim=1, keepdim=True).detach()
    return largest.squeeze(1) + (log_weights - largest).exp().mean(1).log()


@answers.mutant("mean of the logs: the ELBO")
def iwae_bound(log_weights):
    return log_weights.mean(1)


@answers.mutant("no log k")
def iwae_bound(log_weights):
    return log_weights.logsumexp(1)


@answers.mutant("exp, mean, log: underflows")
def iwae_bound(log_weights):
    return log_weights.exp().mean(1).log()


@answers.mutant("detaches the weights")
def iwae_bound(log_weights):
    return log_weights.detach().logsumexp(1) - math.log(log_weights.shape[1])


# ---------------------------------------------------------------- active_units


@answers.second
def active_units(mean, threshold=0.01):
    centred = mean - mean.sum(dim=0) / len(mean)
    return torch.gt((centred * centred).mean(dim=0), threshold)


@answers.mutant("variance over the latent axis")
def active_units(mean, threshold=0.01):
    return mean.var(1) > threshold


@answers.mutant("second moment: not centred")
def active_units(mean, threshold=0.01):
    return mean.square().mean(0) > threshold


@answers.mutant("threshold on the standard deviation")
def active_units(mean, threshold=0.01):
    return mean.std(0) > threshold


@answers.mutant("the collapsed ones")
def active_units(mean, threshold=0.01):
    return mean.var(0) < threshold


@answers.mutant("size of the mean instead of its variance")
def active_units(mean, threshold=0.01):
    return mean.mean(0).abs() > threshold


@answers.mutant("ignores the argument threshold")
def active_units(mean, threshold=0.01):
    return mean.var(0) > 0.01
