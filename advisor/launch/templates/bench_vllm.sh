#!/usr/bin/env bash
@opening@
set -euo pipefail

# ---- what you may change, here or in the environment
@variables@

command -v vllm >/dev/null || {
  echo 'error: vllm is not installed here: pip install vllm' >&2
  exit 1
}
mkdir -p "$OUT"
[[ -z $API_KEY ]] || export OPENAI_API_KEY=$API_KEY
command=(
  vllm bench serve --backend openai --base-url "$URL" --model "$MODEL"
  @served_name@
  --endpoint /v1/completions # no chat template: the prompt has the tokens that were ranked
  --dataset-name random --random-input-len @input_tokens@
  --random-output-len @output_tokens@
  @lengths@
  --ignore-eos # every answer has its full length
  --num-prompts "$REQUESTS"
  @pace@
  --save-result --result-dir "$OUT" --result-filename result.json
)
"${command[@]}"
echo "result: $OUT/result.json"
