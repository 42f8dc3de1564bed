"""Figures of a report: one file per kind, which computes a chart from records and draws it."""

from pemeta.reporting.figures.bars import BarChart as BarChart
from pemeta.reporting.figures.bars import Bars as Bars
from pemeta.reporting.figures.base import AnyFigure as AnyFigure
from pemeta.reporting.figures.base import Chart as Chart
from pemeta.reporting.figures.base import Figure as Figure
from pemeta.reporting.figures.base import Records as Records
from pemeta.reporting.figures.cost import Cost as Cost
from pemeta.reporting.figures.cost import CostChart as CostChart
from pemeta.reporting.figures.gain import GainChart as GainChart
from pemeta.reporting.figures.gain import Gains as Gains
from pemeta.reporting.figures.matrix import Matrix as Matrix
from pemeta.reporting.figures.matrix import MatrixChart as MatrixChart
from pemeta.reporting.figures.picture import Picture as Picture
from pemeta.reporting.figures.picture import drawing as drawing
from pemeta.reporting.figures.picture import how_to_draw as how_to_draw
from pemeta.reporting.figures.picture import names as names
from pemeta.reporting.figures.picture import picture as picture
from pemeta.reporting.figures.sizes import SizeCurves as SizeCurves
from pemeta.reporting.figures.sizes import SizesChart as SizesChart
from pemeta.reporting.figures.steps import Steps as Steps
from pemeta.reporting.figures.steps import StepsChart as StepsChart
