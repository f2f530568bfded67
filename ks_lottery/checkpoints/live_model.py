"""The weights of a model in memory, as a checkpoint."""

from typing import TYPE_CHECKING

from typing_extensions import override

from ks_lottery.checkpoints.checkpoint import Checkpoint, Rows
from ks_lottery.checkpoints.config_file import is_tied
from ks_lottery.checkpoints.dtypes import float_format
from ks_lottery.errors import CheckpointError
from ks_lottery.stats.floats import FloatBits, bits_of, dtype_of, on_gpu

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


class ModelCheckpoint(Checkpoint):
    """The weights of a live `transformers` model, as they are at each reading.

    Args:
        model: on any devices.

    Raises:
        CheckpointError: if it is no transformers model.
    """

    def __init__(self, model: "torch.nn.Module") -> None:
        if not hasattr(model, "config") or not hasattr(model, "named_parameters"):
            raise CheckpointError(
                f"A {type(model).__name__} holds no weights that can be read here. Give a transformers model, a folder "
                "that save_pretrained wrote, or a Hub id such as 'user/model'."
            )
        self._config: PretrainedConfig = model.config
        self.name = str(getattr(model.config, "name_or_path", "") or type(model).__name__)
        self._parameters: dict[str, torch.Tensor] = dict(model.named_parameters())
        self._whole: dict[str, torch.Tensor] = {}

    @property
    @override
    def config(self) -> "PretrainedConfig":
        return self._config

    @property
    @override
    def model_type(self) -> str:
        return str(self._config.model_type)

    @property
    @override
    def tied(self) -> bool:
        return is_tied(self._config)

    @override
    def names(self) -> tuple[str, ...]:
        return tuple(self._parameters)

    @override
    def shape(self, name: str) -> tuple[int, ...]:
        return full_shape(self._parameter(name))

    @override
    def dtype(self, name: str) -> str:
        return dtype_of(self._parameter(name))

    @override
    def bits(self, name: str, start: int = 0, stop: int | None = None) -> FloatBits:
        return bits_of(self.piece(name, start, stop), name)

    @override
    def rows(self, name: str, start: int = 0, stop: int | None = None) -> "torch.Tensor":
        own = self._parameter(name)
        parameter = self._gathered(name) if hasattr(own, "ds_shape") else own.detach()
        if parameter.is_meta:
            raise CheckpointError(
                f"{name!r} of the model {self.name!r} is on the meta device and has no values. Load the model without "
                "offloading, or give its folder."
            )
        return parameter if parameter.dim() == 0 else parameter[start:stop]

    @override
    def piece(self, name: str, start: int = 0, stop: int | None = None) -> Rows:
        float_format(self.dtype(name), name, self.name)
        rows = self.rows(name, start, stop)
        return rows if on_gpu(rows) else bits_of(rows, name)

    def _gathered(self, name: str) -> "torch.Tensor":
        """Copy of a parameter that DeepSpeed ZeRO-3 has partitioned, kept until another one is read.

        All processes have to read it together.
        """
        if name not in self._whole:
            import deepspeed

            self._whole.clear()
            with deepspeed.zero.GatheredParameters([self._parameter(name)]):
                self._whole[name] = self._parameter(name).detach().clone()
        return self._whole[name]

    def _parameter(self, name: str) -> "torch.Tensor":
        if name not in self._parameters:
            raise CheckpointError(f"The model {self.name!r} has no parameter {name!r}.")
        return self._parameters[name]


def full_shape(parameter: "torch.Tensor") -> tuple[int, ...]:
    """Shape of a parameter, also where DeepSpeed has partitioned it."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
