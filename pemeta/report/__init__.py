"""From records to a report: scores with standard errors, paired differences, figures, and what makes them credible."""

from pemeta.report.building import build_report as build_report
from pemeta.report.building import table as table
from pemeta.report.content import Report as Report
from pemeta.report.files import read_report as read_report
from pemeta.report.files import write_report as write_report
from pemeta.report.grid import Planned as Planned
from pemeta.report.markdown import to_markdown as to_markdown
from pemeta.report.page import to_html as to_html
from pemeta.report.terminal import to_terminal as to_terminal
from pemeta.tables import Cell as Cell
from pemeta.tables import Row as Row
from pemeta.tables import Table as Table
