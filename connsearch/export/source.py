"""A network as one file of plain PyTorch that a person can read: classes, a constructor, a forward pass.

Keys of the state dict are those of `connsearch.nn.Network`, so that the same weights load.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence

from connsearch.export import parts
from connsearch.export.classes import Classes, is_inline
from connsearch.export.constructor import constructor
from connsearch.export.description import Description
from connsearch.export.paths import Paths, quoted
from connsearch.export.wiring import Wiring

ALWAYS = ("read_safetensors",)


def model_source(description: Description, docstring: Sequence[str], *, inference: bool = False) -> str:
    """Return the file.

    Args:
        description: The network.
        docstring: Of the file, line by line.
        inference: Whether the network is never trained, so that nothing is dropped at random.

    Raises:
        SpecError: if a layer has an aggregation of one's own, which cannot be written.
    """
    classes = Classes(description)
    paths = Paths([layer.name for layer in description.layers if not is_inline(layer)])
    network = _network(description, classes, paths, inference=inference)
    own = [written.source() for written in classes.written]
    helpers = _helpers("\n".join([*own, network]))
    body = [_source(name) for name in helpers if name not in ALWAYS]
    body += [*own, network, *map(_source, ALWAYS), _LOAD]
    head = ['"""' + docstring[0], *docstring[1:], '"""', "", "from __future__ import annotations", ""]
    return "\n".join([*head, *_imports("\n".join(body)), "", "", "\n\n\n".join(body), ""])


_LOAD = '''def load(weights: str | Path) -> Network:
    """Return the network with weights from a safetensors file, in evaluation mode."""
    network = Network()
    network.load_state_dict(read_safetensors(weights))
    return network.eval()'''


def _network(description: Description, classes: Classes, paths: Paths, *, inference: bool) -> str:
    wiring = Wiring(description, classes, paths, inference=inference)
    c, h, w = description.image
    lines = [
        "class Network(nn.Module):",
        f'    """Images B x {c} x {h} x {w} in, logits out."""',
        "",
        "    def __init__(self) -> None:",
        *constructor(description, classes, paths),
        "",
    ]
    body = wiring.run()
    own = description.heads[-1]
    if len(description.heads) == 1:
        lines += ["    def forward(self, images: Tensor) -> Tensor:", *body]
        name, result = description.layers[own].name, wiring.result(own)
        if lines[-1] == f"        {result} = {lines[-1].partition(' = ')[2]}" and name:
            lines[-1] = f"        return {lines[-1].partition(' = ')[2]}"
        else:
            lines.append(f"        return {result}")
        return "\n".join(lines)
    heads = [(description.layers[index].name, wiring.result(index)) for index in description.heads]
    lines += [
        "    def forward(self, images: Tensor) -> Tensor:",
        '        """Return the logits of the network\'s own head."""',
        f"        return self.logits_by_head(images)[{quoted(heads[-1][0])}]",
        "",
        "    def logits_by_head(self, images: Tensor) -> dict[str, Tensor]:",
        '        """Return the logits of every head; the others supervise earlier layers in training."""',
        *body,
        "        return {",
        *(f"            {quoted(name)}: {result}," for name, result in heads),
        "        }",
    ]
    return "\n".join(lines)


def _helpers(text: str) -> list[str]:
    """Return the parts that code uses, in the order in which they are defined."""
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    return [name for name in _PARTS if name in used or name in ALWAYS]


def _imports(text: str) -> list[str]:
    """Return the imports that code needs."""
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    lines = ["import json"]
    lines += ["from collections.abc import Sequence"] if "Sequence" in used else []
    lines += ["from pathlib import Path", "", "import torch"]
    lines += ["import torch.nn.functional as F"] if "F" in used else []
    return [*lines, "from torch import Tensor, nn"]


def _source(name: str) -> str:
    return inspect.getsource(getattr(parts, name)).rstrip()


_PARTS = [
    name
    for name, value in vars(parts).items()
    if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == parts.__name__
]
"""What a file may need, in the order in which it is defined."""
