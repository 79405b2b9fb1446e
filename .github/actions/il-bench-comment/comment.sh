# Make the text from report.json, and comment on the open pull requests that are at the commit of the run.
set -euo pipefail
export PYTHONPATH="$GITHUB_ACTION_PATH/../../.."
text="$RUNNER_TEMP/il-bench-comment.md"
python -c 'from il_bench.cli import main; main()' report markdown "$IL_REPORT" \
  --missing-ok --page "$IL_RUN#artifacts" --output "$text" > /dev/null
numbers=$(python "$GITHUB_ACTION_PATH/../il-bench/github.py" pull "$IL_HEAD" "$IL_SHA") || {
  echo "$numbers" # why not
  exit 1
}
if [ -z "$numbers" ]; then echo "no open pull request is at $IL_SHA"; fi
for number in $numbers; do
  python "$GITHUB_ACTION_PATH/../il-bench/github.py" comment "$number" "$text"
done
