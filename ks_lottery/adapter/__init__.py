"""Makes exactly the ticket trainable: a PEFT method. Importing this package teaches PEFT its type."""

from ks_lottery.adapter.config import LotteryConfig

__all__ = ["LotteryConfig"]
