#!/usr/bin/env bash
@opening@
set -euo pipefail

# ---- what you may change, here or in the environment
@variables@

command -v aiperf >/dev/null || {
  echo 'error: aiperf is not installed here: pip install aiperf' >&2
  exit 1
}
command=(
  aiperf profile --model @model@ --url "$URL" --streaming
  @tokenizer@
  --endpoint-type completions # no chat template: the prompt has the tokens that were ranked
  --synthetic-input-tokens-mean @input_tokens@ --synthetic-input-tokens-stddev @input_spread@
  --output-tokens-mean @output_tokens@ --output-tokens-stddev @output_spread@
  @prefix@
  --extra-inputs ignore_eos:true # every answer has its full length
  --request-count "$REQUESTS"
  @pace@
  --artifact-dir "$OUT"
)
[[ -z $API_KEY ]] || command+=(--api-key "$API_KEY")
"${command[@]}"
echo "result: $OUT/profile_export_aiperf.json"
