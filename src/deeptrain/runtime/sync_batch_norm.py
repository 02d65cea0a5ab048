"""Batch norm over the images of all processes."""

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """Batch norm whose mean and variance are those of all ranks' images, weighted by their number.

    torch.nn.SyncBatchNorm needs GPUs. Without gradients this is the plain layer.
    """

    def __init__(self, plain: _BatchNorm):
        super().__init__(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats)
        self.weight, self.bias = plain.weight, plain.bias
        for name, buffer in plain.named_buffers():
            setattr(self, name, buffer)
        self.train(plain.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # (N, C, H, W) and (N, C)

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        x = input.float()
        numbers = x.new_full((1,), x.numel() / x.shape[1])  # filled on the device: an upload would wait for it
        *_, count = totals = AllReduceSum.apply(torch.cat([x.sum(axes), numbers]))
        mean = totals[:-1] / count
        centered = x - mean.view(shape)
        variance = AllReduceSum.apply(centered.square().sum(axes)) / count
        if self.track_running_stats:
            self._update_running_stats(mean.detach(), variance.detach() * (count / (count - 1)))
        output = centered * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(input.dtype)

    def _update_running_stats(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


class AllReduceSum(torch.autograd.Function):
    """The sum over all ranks. Its gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient


def convert_sync_batch_norm(model: nn.Module) -> None:
    """Replace every batch norm inside a model by a SyncBatchNorm with the same parameters and buffers."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(module, name, SyncBatchNorm(child))
