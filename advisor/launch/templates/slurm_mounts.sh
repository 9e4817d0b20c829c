mkdir -p "$HF_HOME"
export HF_HOME
MOUNTS="$HF_HOME:$HF_HOME,$RUN_DIR:$RUN_DIR"
if [[ -d $MODEL ]]; then
  MODEL=$(realpath "$MODEL")
  MOUNTS+=",$MODEL:$MODEL:ro"
fi
[[ -z $IMAGE || ! $HF_HOME$RUN_DIR$MODEL =~ [:,] ]] || die "a path with a colon or a comma cannot be mounted into IMAGE"
