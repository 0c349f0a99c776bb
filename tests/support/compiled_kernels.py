"""Compiles the kernels for a card of compute capability 8.6: prints, of each, its name and bytes of shared memory."""

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from yoyak.inference import kernels

TARGET = GPUTarget("cuda", 86, 32)
ATTENTION = {"candidates": 8, "heads": 8, "group": 3, "page_size": 16}


def main() -> None:
    for dtype in ("bf16", "fp32"):
        compiled(kernels._rms_norm, dtype, {"residual": None, "add": False, "one_more": True, "block": 4096}, 8)
        compiled(kernels._rms_norm, dtype, {"add": True, "one_more": False, "block": 4096}, 8)
        compiled(kernels._gated, dtype, {"silu": False, "block": 1024}, 4)
        heads = {"norm": True, "one_more": False, "heads": 8, "group": 3, "size": 128, "page_size": 16}
        compiled(kernels._rotate_and_store, dtype, heads, 1)
        compiled(kernels._log_sum_exp, dtype, {"block": 4096}, 8)
    for dtype, bytes_a_value in (("bf16", 2), ("fp32", 4)):
        for size, window in ((128, 0), (256, 512)):
            tokens, queries = kernels.blocks(size, bytes_a_value)
            options = ATTENTION | {"size": size, "window": window}
            over_prompts = options | {"block_queries": queries, "block_tokens": tokens}
            compiled(kernels._over_prompts, dtype, over_prompts, 4)
            over_own = options | {"block_queries": 16, "block_tokens": kernels.OWN_TOKENS}
            compiled(kernels._over_own, dtype, over_own, 1, 4)


def compiled(kernel: Any, dtype: str, constants: dict[str, Any], warps: int, stages: int = 3) -> None:
    signature = {name: "constexpr" if name in constants else type_of(name, kernel, dtype) for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    result = triton.compile(source, target=TARGET, options={"num_warps": warps, "num_stages": stages})
    print(kernel.__name__, dtype, constants.get("size"), result.metadata.shared)


def type_of(name: str, kernel: Any, dtype: str) -> str:
    if name in ("scaling", "epsilon"):
        return "fp32"
    if name in ("log_sums", "over_prompts") or (
        name == "output" and kernel in (kernels._over_prompts, kernels._log_sum_exp)
    ):
        return "*fp32"
    if name in ("tables", "lengths", "newest"):
        return "*i32"
    if name == "places":
        return "*i64"
    if (
        name.endswith("stride")
        or name in ("vocabulary", "stride")
        or (name == "size" and kernel is not kernels._over_own)
    ):
        return "i32"
    return f"*{dtype}"


if __name__ == "__main__":
    main()
