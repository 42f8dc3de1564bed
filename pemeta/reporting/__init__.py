"""Records of runs, and reports on them: scores with standard errors, paired differences, figures, tables for pandas."""

from pemeta.reporting.building import build_report as build_report
from pemeta.reporting.building import table as table
from pemeta.reporting.content import Report as Report
from pemeta.reporting.files import write_report as write_report
from pemeta.reporting.frame import load_records as load_records
from pemeta.reporting.frame import write_csv as write_csv
from pemeta.reporting.grid import Planned as Planned
from pemeta.reporting.markdown import to_markdown as to_markdown
from pemeta.reporting.page import to_html as to_html
from pemeta.reporting.records import Record as Record
from pemeta.reporting.records import read_records as read_records
from pemeta.reporting.tables import Cell as Cell
from pemeta.reporting.tables import Row as Row
from pemeta.reporting.tables import Table as Table
from pemeta.reporting.terminal import to_terminal as to_terminal
