"""Networks that leave connsearch: a specification, plain PyTorch, torch.export, ONNX; each one verified."""
