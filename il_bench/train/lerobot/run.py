"""Run ``lerobot-train`` and read what it logs: losses and rates for ``train_log.csv``, notes for people."""

import logging
import re
import signal
import sys
import traceback

from lerobot.utils.logging_utils import MetricsTracker

from il_bench.errors import IlBenchError
from il_bench.train.lerobot.command_line import CommandLine
from il_bench.train.log import TrainingLog

EVALUATION = "Eval policy at step "
EXCEPTION = re.compile(r"[\w.]*(Error|Exception)\b")


class LogReader(logging.Filter):
    """Reads the objects in LeRobot's log records, and lets every record pass.

    It filters the root logger and handles nothing, because LeRobot removes all handlers when it begins.
    """

    def __init__(self, log: TrainingLog) -> None:
        super().__init__()
        self._log, self._evaluated_at = log, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Write a row for a record with losses or rates in it."""
        if isinstance(record.msg, MetricsTracker):
            tracker = record.msg
            self._log.training(tracker.steps, loss=tracker.loss.avg, lr=tracker.lr.avg)
        elif str(record.msg).startswith(EVALUATION):
            self._evaluated_at = int(record.msg.removeprefix(EVALUATION))
        elif isinstance(record.args, tuple) and record.args[:1] == ("overall",):
            rates = record.args[1]
            if isinstance(rates, dict) and self._log.has_policy(self._evaluated_at):
                success_rate = float(rates["pc_success"]) / 100
                self._log.evaluation(self._evaluated_at, success_rate, float(rates["avg_max_reward"]))
        return True


def run(line: CommandLine, log: TrainingLog) -> bool:
    """Train to the end; False if Ctrl-C or SIGTERM ended it.

    Raises:
        IlBenchError: LeRobot stopped by itself, with what its exception says.
    """
    from lerobot.scripts import lerobot_eval, lerobot_train

    if not sys.stderr.isatty():  # no progress bars in a file
        for module in (lerobot_eval, lerobot_train):
            module.inside_slurm = lambda: True
    # LeRobot warns in a hundred lines of a video decoder that no recipe uses.
    logging.getLogger("lerobot.utils.import_utils").setLevel(logging.ERROR)
    reader = LogReader(log)
    logging.getLogger().addFilter(reader)
    argv, on_sigterm = sys.argv, signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.argv = ["lerobot-train", *line.words()]  # what --print-command prints is what happens
    try:
        lerobot_train.main()
    except KeyboardInterrupt:
        return False
    except (Exception, SystemExit) as error:
        raise IlBenchError(
            f"lerobot-train stopped: {_last_exception(error)}. Run the line of --print-command by itself to "
            "see all it says."
        ) from None
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, on_sigterm)
        logging.getLogger().removeFilter(reader)
    return True


def _last_exception(error: BaseException) -> str:
    """The exception in one line. Some messages hold tracebacks of their own: then the last one there."""
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    return ([line for line in lines if EXCEPTION.match(line)] or lines)[-1].strip()
