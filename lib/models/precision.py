"""The precision that this machine computes in."""

from typing import Any


def precision() -> str:
    """Return bf16 where the device computes in it, else fp16 on a GPU, else fp32."""
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def torch_dtype() -> Any:
    """Return `precision()` as a torch dtype, which frozen weights are held in."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision()]
