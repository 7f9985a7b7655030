"""Networks as tutorials write them; options turn a network into one with a mistake in its own code."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


def xavier(w: Tensor) -> None:
    """Glorot's normal initialisation."""
    nn.init.xavier_normal_(w)


def kaiming(w: Tensor) -> None:
    """He's normal initialisation for ReLU."""
    nn.init.kaiming_normal_(w, nonlinearity="relu")


def lecun(w: Tensor) -> None:
    """LeCun's normal initialisation."""
    nn.init.kaiming_normal_(w, nonlinearity="linear")


class Layers(nn.Sequential):
    """Linear layers in an `nn.Sequential`.

    Args:
        sizes: Features of the input, of each hidden layer and of the output.
        act: The activation behind every layer but the last; None for none.
        drop: Share of units that dropout leaves out behind each activation.
        norm: Batch norm in front of each activation.
        momentum: Of batch norm.
        init: Draws each weight, and sets biases to zero; None leaves what PyTorch draws.
    """

    def __init__(
        self, sizes: tuple[int, ...], act: type[nn.Module] | None = nn.ReLU, *, drop: float = 0.0, norm: bool = False,
        momentum: float = 0.1, init: Callable[[Tensor], object] | None = None,
    ) -> None:  # fmt: skip
        modules: list[nn.Module] = []
        for a, b in pairwise(sizes[:-1]):
            modules += [nn.Linear(a, b), *([nn.BatchNorm1d(b, momentum=momentum)] if norm else []), *([act()] if act else [])]
            modules += [nn.Dropout(drop)] if drop else []
        super().__init__(*modules, nn.Linear(sizes[-2], sizes[-1]))
        for module in self:
            if init is not None and isinstance(module, nn.Linear):
                init(module.weight)
                nn.init.zeros_(module.bias)


class LeNet(nn.Module):
    """Two convolutions and three linear layers for images of 14 x 14 (LeCun 1998)."""

    def __init__(self, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 16, 3)
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 60), nn.Linear(60, 42), nn.Linear(42, 10)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.act(self.conv1(x)), 2)
        x = F.max_pool2d(self.act(self.conv2(x)), 2)
        x = self.act(self.fc2(self.act(self.fc1(x.flatten(1)))))
        out: Tensor = self.fc3(x)
        return out


class Vgg(nn.Module):
    """Pairs of convolutions with batch norm, and pooling between them, for images of 8 x 8 (Simonyan 2015).

    Args:
        norm: False leaves out batch norm.
        momentum: Of batch norm.
    """

    def __init__(self, channels: tuple[int, ...] = (12, 12, 24, 24), *, norm: bool = True, momentum: float = 0.1) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise((1, *channels))):
            modules += [nn.Conv2d(a, b, 3, padding=1), *([nn.BatchNorm2d(b, momentum=momentum)] if norm else []), nn.ReLU()]
            modules += [nn.MaxPool2d(2)] if i % 2 else []
        self.features = nn.Sequential(*modules)
        self.classifier = nn.Linear(channels[-1] * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).flatten(1))
        return out


class BasicBlock(nn.Module):
    """Two convolutions with batch norm and a skip around them (He 2016)."""

    def __init__(self, channels: int, *, norm: bool, skip: bool, momentum: float) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=not norm) for _ in range(2))
        self.bn1, self.bn2 = (nn.BatchNorm2d(channels, momentum=momentum) if norm else nn.Identity() for _ in range(2))
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(h + x if self.skip else h)


class ResNet(nn.Module):
    """A stem that halves the image, blocks, a mean over the image, and a head."""

    def __init__(self, blocks: int = 3, channels: int = 12, *, norm: bool = True, skip: bool = True, momentum: float = 0.1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=not norm)
        self.bn = nn.BatchNorm2d(channels, momentum=momentum) if norm else nn.Identity()
        self.blocks = nn.Sequential(*(BasicBlock(channels, norm=norm, skip=skip, momentum=momentum) for _ in range(blocks)))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(F.relu(self.bn(self.stem(x))))
        out: Tensor = self.fc(h.mean((2, 3)))
        return out


class ResidualLayers(nn.Module):
    """Linear layers in pairs with a skip around each pair; by mistake without the skips."""

    def __init__(self, inputs: int, outputs: int, *, width: int = 48, blocks: int = 12, skip: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.ins = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.outs = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.last = nn.Linear(width, outputs)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for a, b in zip(self.ins, self.outs, strict=True):
            new = b(F.relu(a(h)))
            h = h + new if self.skip else new
        out: Tensor = self.last(F.relu(h))
        return out


class Autoencoder(nn.Module):
    """An encoder to a small code and a decoder back."""

    def __init__(self, features: int = 64, hidden: int = 48, code: int = 16, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, hidden), act(), nn.Linear(hidden, code))
        self.decoder = nn.Sequential(nn.Linear(code, hidden), act(), nn.Linear(hidden, features))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out
