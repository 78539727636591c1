"""Words of prompts, their tokens, and how two prompts correspond. Imports core."""

from promptweave.words.align import Pair as Pair
from promptweave.words.align import alignment as alignment
from promptweave.words.align import common_tokens as common_tokens
from promptweave.words.align import refine_map as refine_map
from promptweave.words.align import refine_matrix as refine_matrix
from promptweave.words.align import replace_map as replace_map
from promptweave.words.align import suggest as suggest
from promptweave.words.counterparts import counterparts as counterparts
from promptweave.words.selecting import AmbiguousWord as AmbiguousWord
from promptweave.words.selecting import BadSelector as BadSelector
from promptweave.words.selecting import WordNotFound as WordNotFound
from promptweave.words.tokens import Selector as Selector
from promptweave.words.tokens import TruncatedWord as TruncatedWord
from promptweave.words.tokens import Word as Word
from promptweave.words.tokens import Words as Words
from promptweave.words.windows import word_weights as word_weights
from promptweave.words.windows import word_windows as word_windows
