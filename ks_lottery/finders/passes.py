"""What finding costs in passes through the model, counted in examples."""

from dataclasses import dataclass


@dataclass
class Passes:
    """Examples that went through the model; whoever runs it counts.

    Attributes:
        forward: examples computed forward.
        backward: examples differentiated; a Hessian-vector product counts each of its two derivatives.
    """

    forward: int = 0
    backward: int = 0

    def count(self, forward: int = 0, backward: int = 0) -> None:
        """Add examples."""
        self.forward += forward
        self.backward += backward
