if [[ -z $IFNAME ]]; then
  IFNAME=$(ip -o route get "@peer@" 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p') || true
fi
[[ -z $IFNAME ]] || export NCCL_SOCKET_IFNAME=$IFNAME GLOO_SOCKET_IFNAME=$IFNAME
