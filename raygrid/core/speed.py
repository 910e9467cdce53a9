"""How fast a device computes, as far as estimates have to know."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Speed:
    """How fast a device is: sustained training GFLOP/s, and the least seconds an image takes.

    CPU: measured on one thread of a server core, bf16 ResNet-18 and a 16-channel CNN. GPU: a
    24 GB inference card, from the papers' A100 hours scaled down; replace it by a measured one.
    float32: how much longer than in bf16 the same takes, which attacks and purifiers compute in;
    the papers' hours are of float32.
    """

    gflops: float
    per_image: float
    name: str
    float32: float = 1.0

    def seconds(self, gflop: float, images: float) -> float:
        """Time to push `images` images at `gflop` each."""
        return images * max(gflop / self.gflops, self.per_image)

    @property
    def of_float32(self) -> Speed:
        """The same device where everything is computed in float32."""
        return replace(self, gflops=self.gflops / self.float32, float32=1.0)


DRAW_SECONDS = 5e-9
"""Seconds in which a core draws a normal number, of which every device waits for the host's."""
CPU = Speed(gflops=300.0, per_image=1.2e-4, name="CPU core", float32=2.1)
GPU = Speed(gflops=20_000.0, per_image=1.5e-5, name="GPU")
