#!/usr/bin/env bash
@opening@
@directives@
set -euo pipefail

# ---- what you may change, here or in the environment
@variables@

# ---- what is started
@start_server@

@balancer@
# ---- how: checks, start, wait, stop (the same in every script)
@helpers@

mkdir -p "$RUN_DIR"
@traps@

@checks@

@environment@
@config@

@calls@

@until_ready@
@until_end@
