# Roll the policies out and gate them. Sets the output `status`. A verdict does not fail this step: the next ones tell it.
set -euo pipefail
began="$RUNNER_TEMP/il-bench-began"
touch "$began"
arguments=(--benchmark --pyargs il_bench.suite -m success --il-report "$IL_REPORT" --junit-xml "$IL_REPORT/junit.xml")

each_line() { # of $1, after $2 if that is not empty
  local line
  while IFS= read -r line; do
    line=${line%$'\r'}
    if [ -n "$line" ]; then arguments+=(${2:+"$2"} "$line"); fi
  done <<< "$1"
}

each_line "$IL_POLICY" --il-policy
if [ -n "$IL_TARGET" ]; then arguments+=(--il-target "$IL_TARGET"); fi
if [ -n "$IL_EPISODES" ]; then arguments+=(--il-episodes "$IL_EPISODES"); fi
if [ -n "$IL_BASELINES" ]; then
  baselines=$IL_BASELINES
  if [ -n "$IL_BASELINES_REF" ]; then
    theirs="$RUNNER_TEMP/il-bench-baselines.json"
    if python "$GITHUB_ACTION_PATH/github.py" file "$IL_BASELINES" "$IL_BASELINES_REF" "$theirs"; then
      baselines=$theirs
    elif [ $? -ne 3 ]; then
      exit 1
    fi
  fi
  arguments+=(--il-baselines "$baselines")
fi
each_line "$IL_ARGUMENTS" ""

status=0
env -u IL_TOKEN python -m pytest "${arguments[@]}" || status=$?
# A report of an earlier step, which this run did not replace, would be told as this run's.
if [ "$began" -nt "$IL_REPORT/report.json" ]; then rm -f "$IL_REPORT/report.json"; fi
echo "status=$status" >> "$GITHUB_OUTPUT"
