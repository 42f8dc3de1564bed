"""Labelled examples: reading them from files and the hub, encoding them for a backbone, and scoring predictions."""

from pemeta.data.blocks import EncodedBlocks as EncodedBlocks
from pemeta.data.blocks import encode_language_model as encode_language_model
from pemeta.data.completions import EncodedCompletions as EncodedCompletions
from pemeta.data.completions import encode_completions as encode_completions
from pemeta.data.completions import encode_prompts as encode_prompts
from pemeta.data.corpus import Corpus as Corpus
from pemeta.data.encoding import Encoded as Encoded
from pemeta.data.encoding import encode as encode
from pemeta.data.examples import Examples as Examples
from pemeta.data.masked import EncodedMasked as EncodedMasked
from pemeta.data.masked import encode_masked_language_model as encode_masked_language_model
from pemeta.data.sentences import LabelSet as LabelSet
from pemeta.data.sentences import Sentence as Sentence
from pemeta.data.stored_sentences import store_sentences as store_sentences
from pemeta.data.synthetic import SyntheticWorld as SyntheticWorld
from pemeta.data.table_sources import HubData as HubData
from pemeta.data.table_sources import TableData as TableData
from pemeta.data.texts import EncodedTexts as EncodedTexts
from pemeta.data.texts import encode_texts as encode_texts
from pemeta.data.turns import Completion as Completion
