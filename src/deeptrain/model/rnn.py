"""Recurrent networks that read an image row by row."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from deeptrain.model.layers import initialize
from deeptrain.schema import DropRate, PositiveInt, validate_call

Cell = Literal["elman", "gru", "lstm"]

CELLS: dict[Cell, Callable[..., nn.RNNBase]] = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
GATES: dict[Cell, int] = {"elman": 1, "gru": 3, "lstm": 4}  # matrices stacked in each weight


class RNN(nn.Module):
    """Recurrent network on the rows of an image, from the top. A linear layer classifies the last layer's last state.

    (N, C, H, W) -> logits (N, num_classes). A step reads the C·W values of a row, with the same weights for every row:
    h_t = f(h_{t-1}, x_t; W). elman: f = activation(W x_t + U h_{t-1} + b), tanh if not given (Elman, 1990). gru: Cho
    et al. (2014). lstm: Hochreiter & Schmidhuber (1997). There are `layers` stacked layers with a state of `hidden`
    values each, and dropout between them.

    Recurrent matrices start orthogonal (Saxe et al., 2014): states neither vanish nor explode at first. Other matrices
    have deviation 1/√fan_in. Biases are 0, but 1 for an LSTM's forget gate (Jozefowicz et al., 2015).
    """

    @validate_call
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        cell: Cell = "elman",
        hidden: PositiveInt = 128,
        layers: PositiveInt = 1,
        activation: Literal["tanh", "relu"] | None = None,
        dropout: DropRate = 0.0,
    ):
        super().__init__()
        if activation is not None and cell != "elman":
            raise ValueError(f"activation={activation}: only cell=elman reads it, here it is {cell}")
        if dropout and layers == 1:
            raise ValueError(f"dropout={dropout}: it is between layers, and layers=1; set dropout=0 or add a layer")
        channels, _, width = input_shape
        settings = {"nonlinearity": activation or "tanh"} if cell == "elman" else {}
        self.recurrent = CELLS[cell](channels * width, hidden, layers, dropout=dropout, **settings)
        self.classifier = nn.Linear(hidden, num_classes)
        initialize(self, "lecun", "tanh", None, output=self.classifier)
        self._initialize_recurrent(GATES[cell])

    def _initialize_recurrent(self, gates: int) -> None:
        for name, parameter in self.recurrent.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
                if name.startswith("bias_ih") and gates == GATES["lstm"]:
                    nn.init.ones_(parameter.chunk(gates)[1])  # input, forget, cell, output
                continue
            for matrix in parameter.chunk(gates):
                if name.startswith("weight_hh"):
                    nn.init.orthogonal_(matrix)
                else:
                    nn.init.normal_(matrix, std=matrix.shape[1] ** -0.5)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.permute(2, 0, 3, 1).flatten(2)  # (H, N, W·C)
        _, state = self.recurrent(rows)
        state = state[0] if isinstance(state, tuple) else state  # an LSTM also returns its cell state
        return self.classifier(state[-1])

    def train(self, mode: bool = True) -> "RNN":
        self.recurrent.flatten_parameters()  # a copy (an average) has scattered ones: cuDNN would warn at every pass
        return super().train(mode)
