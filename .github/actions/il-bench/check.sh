# Refuse inputs that nothing could come of, before an hour of rollouts.
# Sets the outputs `key`, which changes with what is installed, and `cache`, the folder of pip's cache.
set -euo pipefail

refuse() {
  echo "::error title=il_bench::$1"
  exit 2
}

if [ -z "${IL_POLICY//[[:space:]]/}" ]; then refuse "policy: empty; name at least one policy"; fi
case "$IL_FAIL_ON" in
  fail | inconclusive | never) ;;
  *) refuse "fail-on: none of fail, inconclusive and never" ;;
esac

of='import hashlib, os, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read() + os.environ["IL_TORCH_INDEX"].encode()).hexdigest()[:16])'
key=$(python -c "$of" "$GITHUB_ACTION_PATH/../../../requirements.lock")
cache=$(python -m pip cache dir || echo "$HOME/.cache/pip")
{
  echo "key=$key"
  echo "cache=$cache"
} >> "$GITHUB_OUTPUT"
