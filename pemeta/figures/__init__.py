"""Figures of a report: one file per kind, each with what it computes from records and how that is drawn."""

from pemeta.figures.bars import BarChart as BarChart
from pemeta.figures.bars import Bars as Bars
from pemeta.figures.base import AnyFigure as AnyFigure
from pemeta.figures.base import Chart as Chart
from pemeta.figures.base import Figure as Figure
from pemeta.figures.base import Records as Records
from pemeta.figures.cost import Cost as Cost
from pemeta.figures.cost import CostChart as CostChart
from pemeta.figures.gain import GainChart as GainChart
from pemeta.figures.gain import Gains as Gains
from pemeta.figures.matrix import Matrix as Matrix
from pemeta.figures.matrix import MatrixChart as MatrixChart
from pemeta.figures.picture import Picture as Picture
from pemeta.figures.picture import drawing as drawing
from pemeta.figures.picture import how_to_draw as how_to_draw
from pemeta.figures.picture import names as names
from pemeta.figures.picture import picture as picture
from pemeta.figures.sizes import SizeCurves as SizeCurves
from pemeta.figures.sizes import SizesChart as SizesChart
from pemeta.figures.steps import Steps as Steps
from pemeta.figures.steps import StepsChart as StepsChart
