"""Engine tables beside the points, as rows of points."""

from __future__ import annotations

from pathlib import Path

from advisor.calibrate.points import figures_of_row, point_of_row
from fitting.engine_rows import engine_rows

ROCM = """model,tp,mode,batch_or_prompts,input_tokens,output_tokens,latency_s,output_tokens_per_s,source
Llama-3.1-70B fp8,8,static_batch,16,2048,2048,22.347,,page
Llama-3.1-70B fp8,8,offline (max_num_seqs=prompts),3200,128,2048,,13383.3,page
"""
HEAD = "hardware,framework,image,model,precision,spec,disagg,d_tp,d_ep,d_dp_attention,d_gpus,isl,osl,concurrency,ttft_mean_s,"
PERCENTILES = (
    HEAD + "ttft_median_s,tpot_mean_s,tpot_median_s,date\n"
    "mi355x,sglang,sglang:v0.5.9-rocm700-mi35x,DeepSeek-R1,fp4,none,0,8,1,0,8,1024,8192,4,.4695,.1,.0094,.0093,2026-03-05\n"
    "mi355x,sglang,sglang:v0.5.9,DeepSeek-R1,fp8,mtp,0,8,1,0,8,1024,8192,4,.4695,.1,.0094,.0093,2026-03-05\n"
    "mi355x,mori-sglang,sglang:v0.5.9,DeepSeek-R1,fp8,none,1,8,1,0,8,1024,8192,4,.4695,.1,.0094,.0093,2026-03-05\n"
)


def test_rows_of_both_tables_are_questions_with_figures(tmp_path: Path) -> None:
    (tmp_path / "amd_vllm_mi300x.csv").write_text(ROCM)
    (tmp_path / "percentiles.csv").write_text(PERCENTILES)
    rows = engine_rows(tmp_path)
    points = [point_of_row(row) for row in rows]
    assert [(p.hardware, p.engine, p.engine_version, p.workload.mode, p.workload.users) for p in points] == [
        ("mi300x", "vllm", "0.10.0", "static_batch", 16),
        ("mi300x", "vllm", "0.10.0", "offline", 3200),
        ("mi355x", "sglang", "0.5.9", "closed_loop", 4),  # speculation and separate pools stay out
    ]
    assert [figures_of_row(row) for row in rows] == [
        {"latency_s": 22.347}, {"output_tokens_per_s": 13383.3}, {"ttft_s": 0.4695, "tpot_s": 0.0094}
    ]  # fmt: skip
    assert points[2].weight_dtype == "mxfp4"


def test_tables_that_are_absent_have_no_rows(tmp_path: Path) -> None:
    assert engine_rows(tmp_path) == []
