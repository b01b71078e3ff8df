"""The LUCID training step in PyTorch, twice: with dense codes, and with sparse ones.

Both compute the paper's objective (self + cross + align, guided Sinkhorn plan without gradient, mean reduction) and
differ in how codes are held:

- dense: codes are [n, latents] tensors with zeros; everything is a matrix product and autograd does the rest.
- sparse: codes are (index, value) pairs; decoders are `embedding_bag`, and the encoder's gradient, which autograd would
  take through a dense [n, latents] array, is the weight gradient of an `embedding_bag` too.

`self_test` holds both to the losses and gradients of the project's fixture, made by an independent implementation.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

MODALITIES = ("vision", "text")


def relu_topk(a, k):
    values, index = a.topk(k, dim=-1) if k > 0 else (a[..., :0], a[..., :0].long())
    return values.relu(), index


def select(a, config):
    """Values and indices of Top-k in each block; indices count over all latents."""
    d_shared = config["dShared"]
    shared, shared_index = relu_topk(a[..., :d_shared], config["kShared"])
    private, private_index = relu_topk(a[..., d_shared:], config["kPrivate"])
    return torch.cat([shared, private], -1), torch.cat([shared_index, private_index + d_shared], -1)


class SparseEncode(torch.autograd.Function):
    """Top-k codes of W_encᵀ(h − b_dec) + b_enc; W is latent-major [latents, d]. The gradient stays sparse."""

    @staticmethod
    def forward(ctx, h, w_t, b_enc, b_dec, config):
        centred = h - b_dec
        values, index = select(torch.addmm(b_enc, centred, w_t.t()), config)
        ctx.save_for_backward(centred, w_t, values, index)
        ctx.mark_non_differentiable(index)
        return values, index

    @staticmethod
    def backward(ctx, d_values, _):
        centred, w_t, values, index = ctx.saved_tensors
        da = torch.where(values > 0, d_values, 0.0)
        n, k = index.shape
        integers = {"dtype": torch.long, "device": index.device}
        offsets = torch.arange(n, **integers).repeat_interleave(k)
        d_w = torch.ops.aten._embedding_bag_dense_backward(
            centred, index.reshape(-1), offsets, torch.full((n,), k, **integers), torch.empty(0, **integers),
            w_t.shape[0], False, 0, da.reshape(-1), -1,
        )
        d_b_enc = da.new_zeros(w_t.shape[0]).index_add_(0, index.reshape(-1), da.reshape(-1))
        return None, d_w, d_b_enc, -(d_b_enc @ w_t), None


class Dense:
    """Codes as [n, latents] tensors."""

    name = "PyTorch dense"

    def __init__(self, config):
        self.config = config

    def encode(self, h, p):
        a = torch.addmm(p["b_enc"], h - p["b_dec"], p["W_enc_t"].t())
        values, index = select(a, self.config)
        return torch.zeros_like(a).scatter(-1, index, values)

    def decode(self, z, p):
        return torch.addmm(p["b_dec"], z, p["W_dec"])

    def decode_shared(self, z, p):
        d_shared = self.config["dShared"]
        return torch.addmm(p["b_dec"], z[:, :d_shared], p["W_dec"][:d_shared])

    def cosines(self, vision, text, pairs):
        d_shared = self.config["dShared"]
        vision = F.normalize(vision[:, :d_shared], dim=-1).view(pairs, -1, d_shared)
        text = F.normalize(text[:, :d_shared], dim=-1).view(pairs, -1, d_shared)
        return vision @ text.transpose(1, 2)

    def mass_weights(self, vision, text, pairs):
        d_shared = self.config["dShared"]
        g = vision[:, :d_shared].view(pairs, -1, d_shared).mean(1)
        text = F.normalize(text[:, :d_shared], dim=-1).view(pairs, -1, d_shared)
        return (text @ F.normalize(g, dim=-1).unsqueeze(-1)).squeeze(-1).relu()


class Sparse:
    """Codes as (value, index) pairs."""

    name = "PyTorch sparse"

    def __init__(self, config):
        self.config = config

    def encode(self, h, p):
        return SparseEncode.apply(h, p["W_enc_t"], p["b_enc"], p["b_dec"], self.config)

    def decode(self, code, p):
        values, index = code
        return F.embedding_bag(index, p["W_dec"], per_sample_weights=values, mode="sum") + p["b_dec"]

    def decode_shared(self, code, p):
        k = self.config["kShared"]
        values, index = code[0][:, :k].contiguous(), code[1][:, :k].contiguous()
        return F.embedding_bag(index, p["W_dec"], per_sample_weights=values, mode="sum") + p["b_dec"]

    def shared(self, code, pairs):
        k = self.config["kShared"]
        values, index = F.normalize(code[0][:, :k], dim=-1), code[1][:, :k]
        return values.view(pairs, -1, k), index.view(pairs, -1, k)

    def cosines(self, vision, text, pairs):
        """A table latent × text token a pair, whose rows a patch's code sums."""
        (v, v_index), (t, t_index) = self.shared(vision, pairs), self.shared(text, pairs)
        d_shared, tokens = self.config["dShared"], t.shape[1]
        table = t.new_zeros(pairs, tokens, d_shared).scatter_(-1, t_index, t)
        table = table.transpose(1, 2).reshape(pairs * d_shared, tokens)
        index = v_index + torch.arange(pairs, device=v.device).view(-1, 1, 1) * d_shared
        index, v = index.flatten(0, 1), v.flatten(0, 1)
        return F.embedding_bag(index, table, per_sample_weights=v, mode="sum").view(pairs, -1, tokens)

    def mass_weights(self, vision, text, pairs):
        k, d_shared = self.config["kShared"], self.config["dShared"]
        g = vision[0].new_zeros(pairs, d_shared)
        g.scatter_add_(1, vision[1][:, :k].reshape(pairs, -1), vision[0][:, :k].reshape(pairs, -1))
        (t, t_index) = self.shared(text, pairs)
        near = F.normalize(g, dim=-1).gather(1, t_index.flatten(1)).view_as(t)
        return (near * t).sum(-1).relu()


def plan_of(codes, vision, text, pairs):
    """The guided entropic plan [pairs, T_v, T_t], a constant of the step."""
    config = codes.config
    with torch.no_grad():
        cost = 1 - codes.cosines(vision, text, pairs)
        tokens = cost.shape[2]
        w = codes.mass_weights(vision, text, pairs)
        cost = cost + config["lambdaGlobal"] * (1 - w).unsqueeze(1)
        if config["massReweighting"]:
            mean = w.mean(1, keepdim=True)
            s = torch.where(mean > 0, w + 1e-6 * mean, torch.ones_like(w))
            column = s / s.sum(1, keepdim=True)
        else:
            column = torch.full_like(w, 1 / tokens)
        kernel = (-cost / config["epsilon"]).exp()
        v = torch.ones_like(column).unsqueeze(-1)
        row = 1 / cost.shape[1]
        for _ in range(config["iterations"]):
            u = row / (kernel @ v)
            v = column.unsqueeze(-1) / (kernel.transpose(1, 2) @ u)
        return u * kernel * v.transpose(1, 2)


def step_losses(codes, params, groups, variance):
    """The named losses (spec 4.1, `mean`) over groups of (vision [B, T_v, d], text [B, T_t, d])."""
    sums = {f"{loss}_{m}": 0.0 for loss in ("self", "cross", "align") for m in MODALITIES}
    tokens = dict.fromkeys(MODALITIES, 0)
    all_pairs = 0
    for vision, text in groups:
        h = {"vision": vision, "text": text}
        pairs = vision.shape[0]
        all_pairs += pairs
        z = {m: codes.encode(h[m].flatten(0, 1), params[m]) for m in MODALITIES}
        plan = plan_of(codes, z["vision"], z["text"], pairs)
        weights = {
            "vision": plan / plan.sum(2, keepdim=True),
            "text": (plan / plan.sum(1, keepdim=True)).transpose(1, 2),
        }
        for m, source in (("vision", "text"), ("text", "vision")):
            tokens[m] += h[m].shape[0] * h[m].shape[1]
            own = codes.decode(z[m], params[m])
            sums[f"self_{m}"] += (h[m].flatten(0, 1) - own).square().sum()
            decoded = codes.decode_shared(z[source], params[m]).view(pairs, -1, h[m].shape[2])
            sums[f"cross_{m}"] += (h[m] - weights[m] @ decoded).square().sum()
            sums[f"align_{m}"] += (decoded.mean(1) - h[m].mean(1)).square().sum()
    losses = {}
    for m in MODALITIES:
        losses[f"self_{m}"] = sums[f"self_{m}"] / tokens[m] / variance[m]
        losses[f"cross_{m}"] = sums[f"cross_{m}"] / tokens[m] / variance[m]
        losses[f"align_{m}"] = sums[f"align_{m}"] / all_pairs / variance[m]
    config = codes.config
    losses["total"] = sum(
        config["alpha"] * losses[f"self_{m}"]
        + config["beta"] * losses[f"align_{m}"]
        + config["gamma"] * losses[f"cross_{m}"]
        for m in MODALITIES
    )
    return losses


def self_test(fixture: Path):
    """Losses to 1e-9 and gradients to 1e-8 (relative, f64) of the fixture `step-model`."""
    from safetensors import safe_open

    with safe_open(fixture, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    config, variance = json.loads(metadata["config"]), json.loads(metadata["variance"])
    for kind in (Dense, Sparse):
        params = {}
        for m in MODALITIES:
            given = {name: tensors[f"param.{m}.{name}"] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
            given["W_enc_t"] = given.pop("W_enc").t().contiguous()
            params[m] = {name: value.clone().requires_grad_() for name, value in given.items()}
        lengths = [tensors[f"batch.{m}Lengths"].tolist() for m in MODALITIES]
        parts = [tensors[f"batch.{m}"].split(length) for m, length in zip(MODALITIES, lengths)]
        groups = [(v.unsqueeze(0), t.unsqueeze(0)) for v, t in zip(*parts)]
        losses = step_losses(kind(config), params, groups, variance)
        losses["total"].backward()
        for name, value in losses.items():
            expected = tensors[f"loss.{name}"].item()
            error = abs(value.item() - expected) / max(1.0, abs(expected))
            assert error < 1e-9, f"{kind.name}: loss {name} is {value.item()}, expected {expected}"
        for m in MODALITIES:
            for name, value in params[m].items():
                found = value.grad.t() if name == "W_enc_t" else value.grad
                expected = tensors[f"grad.{m}.{name.removesuffix('_t')}"]
                error = ((found - expected).norm() / expected.norm()).item()
                assert error < 1e-8, f"{kind.name}: gradient {m}.{name} is off by {error}"
        print(f"{kind.name}: losses and gradients agree with the fixture", flush=True)


class Trainer:
    """A model at a given shape with its AdamW, and one batch."""

    def __init__(self, kind, config, width, patches, tokens, pairs, micro_pairs, device="cpu"):
        self.codes = kind(config)
        generator = torch.Generator().manual_seed(1)
        latents = config["dShared"] + config["dPrivate"]

        def uniform(*shape):
            return (torch.rand(*shape, generator=generator) * 2 - 1).to(device)

        self.params = {
            m: {
                "W_enc_t": uniform(latents, width) * width**-0.5,
                "b_enc": torch.zeros(latents, device=device),
                "W_dec": uniform(latents, width) * width**-0.5,
                "b_dec": torch.zeros(width, device=device),
            }
            for m in MODALITIES
        }
        decayed, others = [], []
        for params in self.params.values():
            for name, value in params.items():
                value.requires_grad_()
                (decayed if name.startswith("W") else others).append(value)
        self.optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=3e-4, fused=True
        )
        vision, text = uniform(pairs, patches, width), uniform(pairs, tokens, width)
        self.groups = list(zip(vision.split(micro_pairs), text.split(micro_pairs)))
        self.variance = {m: width / 3 for m in MODALITIES}
        self.tokens = pairs * (patches + tokens)

    def step(self, losses=step_losses):
        self.optimiser.zero_grad(set_to_none=False)
        loss = losses(self.codes, self.params, self.groups, self.variance)["total"]
        loss.backward()
        self.optimiser.step()
        return loss.item()
