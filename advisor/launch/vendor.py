"""What differs between NVIDIA's and AMD's GPUs in a script: how they are chosen, counted, and handed to a container or a pod."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.errors import PlanError
from advisor.launch.template import lines
from advisor.specs.cluster import Cluster
from advisor.specs.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """`visible` is the variable that chooses the GPUs and orders them; `environment` is set for every engine process.

    `count` is the template that counts the GPUs of this machine, `container` the one that gives them to a container; `resource` is
    what a pod asks for, `product` the node label with the GPU's name, whose spaces are `dash`.
    """

    name: str
    visible: str
    environment: tuple[tuple[str, str], ...]
    count: str
    container: str
    resource: str
    product: str
    dash: str

    def image(self, problem: Problem) -> str:
        """The engine's container image for these GPUs; empty where its profile names none."""
        if self.name == "nvidia":
            return problem.engine.image
        chip = problem.cluster.device.compute_capability
        return next((image for chips, image in problem.engine.rocm_images if chip.startswith(chips)), "")

    def count_gpus(self) -> list[str]:
        """The bash lines that set `found` to the number of GPUs."""
        return lines(self.count)


NVIDIA = Vendor(
    name="nvidia", visible="CUDA_VISIBLE_DEVICES", environment=(("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),), count="count_nvidia.sh",
    container="container_nvidia.options", resource="nvidia.com/gpu", product="nvidia.com/gpu.product", dash="-",
)  # fmt: skip
# RCCL's channels and kernel arguments as AMD's guide for vLLM on Instinct GPUs has them (rocm.docs.amd.com, "vLLM V1 performance
# optimization"); AITER's kernels, which published figures were measured with, are off by default.
AMD = Vendor(
    name="amd", visible="HIP_VISIBLE_DEVICES",
    environment=(
        ("HIP_FORCE_DEV_KERNARG", "1"), ("NCCL_MIN_NCHANNELS", "112"), ("VLLM_ROCM_USE_AITER", "1"), ("SGLANG_USE_AITER", "1"),
    ),
    count="count_amd.sh", container="container_amd.options", resource="amd.com/gpu", product="amd.com/gpu.product-name", dash="_",
)  # fmt: skip


def vendor_of(cluster: Cluster, engine: str) -> Vendor:
    """The vendor of the cluster's GPUs. Raises PlanError where `engine` has no launch scripts for them."""
    names = {device.vendor.lower() for device in cluster.node.devices}
    if names == {"nvidia"}:
        return NVIDIA
    if names == {"amd"} and engine in ("vllm", "sglang"):
        return AMD
    found = " and ".join(sorted(names))
    raise PlanError(
        f"{engine} has no launch scripts for GPUs of {found}; they are written for NVIDIA, vllm and sglang for AMD too."
    )
