# Install the il_bench that this action belongs to, with the versions of its lock file; torch first, from
# IL_TORCH_INDEX if there is one.
set -euo pipefail
root="$GITHUB_ACTION_PATH/../../.."
pip=(python -m pip install --quiet --disable-pip-version-check --constraint "$root/requirements.lock")
if [ -n "$IL_TORCH_INDEX" ]; then "${pip[@]}" --index-url "$IL_TORCH_INDEX" torch torchvision; fi
packages=("$root")
while IFS= read -r package; do
  if [ -n "$package" ]; then packages+=("$package"); fi
done <<< "$IL_PACKAGES"
"${pip[@]}" "${packages[@]}"
