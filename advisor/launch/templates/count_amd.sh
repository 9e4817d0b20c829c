check_program amd-smi "it comes with ROCm"
found=$(amd-smi list | grep -c '^GPU') || true
