# Install what reading a report takes, without torch and LeRobot.
set -euo pipefail
python -m pip install --quiet --disable-pip-version-check --constraint "$GITHUB_ACTION_PATH/../../../requirements.lock" \
  filelock gymnasium jinja2 numpy pydantic rich scipy typer
