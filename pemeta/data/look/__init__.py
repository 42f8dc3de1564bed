"""A first look at data: what a file holds, what is odd in it, and the configuration that reads it."""

from pemeta.data.look.base import Asked as Asked
from pemeta.data.look.base import Look as Look
from pemeta.data.look.data_set import DataSet as DataSet
from pemeta.data.look.data_set import Reading as Reading
from pemeta.data.look.data_set import data_set_of as data_set_of
from pemeta.data.look.data_set import reading_of as reading_of
from pemeta.data.look.folder import Folder as Folder
from pemeta.data.look.folder import look_into as look_into
from pemeta.data.look.look import SentenceLook as SentenceLook
from pemeta.data.look.row_look import RowLook as RowLook
from pemeta.data.look.table_file import table_format as table_format
