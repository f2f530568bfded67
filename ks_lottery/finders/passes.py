"""What finding costs: passes through the model, counted in examples, and the time of trainings."""

from dataclasses import dataclass


@dataclass
class Passes:
    """Examples that went through the model; whoever runs it counts.

    Attributes:
        forward: examples computed forward.
        backward: examples differentiated; a Hessian-vector product counts each of its two derivatives.
        seconds: of trainings, when they were made; a training that is read again counts as much.
    """

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0

    def count(self, forward: int = 0, backward: int = 0, seconds: float = 0.0) -> None:
        """Add examples, and the time that a training took."""
        self.forward += forward
        self.backward += backward
        self.seconds += seconds
