#!/usr/bin/env bash
@opening@
set -euo pipefail

# ---- what you may change, here or in the environment
@variables@

# ---- what is started
@functions@
# ---- how: checks, start, wait, stop (the same in every script)
@helpers@

@lock@
@traps@

@checks@
@port_checks@

@environment@
@config@

@calls@

@until_ready@
@until_end@
