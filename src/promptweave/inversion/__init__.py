"""From an image back to the start of a run that makes it again: one file per paper.

An inversion is chosen by name (`KNOWN`); a line here makes a new one known.
"""

from promptweave.inversion.auto import Auto as Auto
from promptweave.inversion.ddim import Direct as Direct
from promptweave.inversion.ddim import Plain as Plain
from promptweave.inversion.edit_friendly import EditFriendly as EditFriendly
from promptweave.inversion.infedit import InfEdit as InfEdit
from promptweave.inversion.inverting import KNOWN as KNOWN
from promptweave.inversion.inverting import CannotInvert as CannotInvert
from promptweave.inversion.inverting import Inversion as Inversion
from promptweave.inversion.inverting import Inverted as Inverted
from promptweave.inversion.negative_prompt import NegativePrompt as NegativePrompt
from promptweave.inversion.null_text import NullLatent as NullLatent
from promptweave.inversion.null_text import NullText as NullText
from promptweave.inversion.proximal import Proximal as Proximal
from promptweave.inversion.regularised import Regularised as Regularised
from promptweave.inversion.renoise import ReNoise as ReNoise
from promptweave.inversion.rf_inversion import RFInversion as RFInversion
from promptweave.inversion.second_order import FireFlow as FireFlow
from promptweave.inversion.second_order import RFSolver as RFSolver
from promptweave.inversion.second_order import UniInv as UniInv
from promptweave.inversion.step_exact import StepExact as StepExact
from promptweave.inversion.turbo_edit import TurboEdit as TurboEdit
