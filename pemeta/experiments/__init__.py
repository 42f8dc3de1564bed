"""Grids of runs: their configurations, searches, schedules, worker processes and records."""

from pemeta.experiments.config import GridConfig as GridConfig
from pemeta.experiments.config_file import load_config as load_config
from pemeta.experiments.report_files import read_report as read_report
from pemeta.experiments.runner import Runner as Runner
