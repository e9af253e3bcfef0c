"""What the parity tests of diffusers' models share."""

import torch


def randomise_matrices(model: torch.nn.Module, *, generator: torch.Generator) -> None:
    """Matrices and kernels that keep the scale of what they are given.

    The library's own initialisation starts temporal convolutions at zero and makes the caption
    count for next to nothing.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                _draw_matrix(parameter, generator)


def randomise(model: torch.nn.Module, *, seed: int) -> None:
    """Every parameter, biases and norms too, which the library starts at zero and one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                _draw_matrix(parameter, generator)
            else:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.2 * noise + ("norm" in name and name.endswith("weight")))


def _draw_matrix(parameter: torch.Tensor, generator: torch.Generator) -> None:
    noise = torch.randn(parameter.shape, generator=generator)
    parameter.copy_(noise / parameter[0].numel() ** 0.5)
