"""Launch scripts that were changed, cut off or made up: the plan, or one sentence."""

from __future__ import annotations

import pytest

from advisor.errors import ProfileError
from advisor.launch import parse

LINE = "# advisor-plan: tp=2,pp=1,dp=1\n"


@pytest.mark.parametrize(
    "text",
    [
        LINE + "  local command=(\n    vllm serve 'open\n  )\nstart_server 0 x\n",
        LINE + "  local command=(\n  )\n",
        LINE + "  local command=(\n    vllm serve x --tensor-parallel-size two\n  )\n",
        LINE + "export VLLM_PP_LAYER_PARTITION=a,b\n  local command=(\n    vllm serve x\n  )\n",
        LINE + "\n---\nservices: 5\n",
        LINE + "\n---\nservices: [1, 2]\n",
        LINE + "\n---\nservices:\n  a: 5\n",
        LINE + "\n---\nkind: Deployment\n",
        LINE + "\n---\nkind: Deployment\nspec: {template: {spec: {containers: 7}}}\n",
        LINE + "\n---\nkind: Deployment\nspec: {replicas: many, template: {spec: {containers: [{command: [vllm, serve]}]}}}\n",
        LINE + "\n---\nkind: LeaderWorkerSet\nspec: {leaderWorkerTemplate: 3}\n",
        LINE + "\n---\nkind: ConfigMap\ndata: {trtllm.yaml: 5}\n",
        LINE + "\n---\na: " + "[" * 200_000 + "\n",
        LINE + "  local command=(\n" * 100_000,
        "# advisor-plan: tp=0\n",
        "# advisor-plan: tp=2,layers=\n",
        "# advisor-plan: tp=2 max_sequences=1e9\n",
    ],
)
@pytest.mark.timeout(20)
def test_what_is_no_script_of_ours_is_one_sentence(text: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse(text)
    assert len(str(caught.value)) < 500
