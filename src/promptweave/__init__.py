"""promptweave: see and steer the attention of text-to-image diffusion models.

>>> import promptweave as pw
>>> result = pw.edit("a photo of a cat riding a bike", "a photo of a cat riding a car", steps=2)
>>> result.edited.size
(128, 128)
"""

from promptweave.core.clock import Step as Step
from promptweave.core.clock import Window as Window
from promptweave.core.control import Control as Control
from promptweave.core.control import Hooks as Hooks
from promptweave.core.control import NoEffect as NoEffect
from promptweave.core.record_maps import RecordMaps as RecordMaps
from promptweave.core.site import Site as Site
from promptweave.core.site import Sites as Sites
from promptweave.editing.edit import edit as edit
from promptweave.editing.edit import generate as generate
from promptweave.editing.edit import record as record
from promptweave.editing.edit import run as run
from promptweave.editing.edit import run_many as run_many
from promptweave.editing.recipe import Recipe as Recipe
from promptweave.editing.record import Recording as Recording
from promptweave.editing.replay import replay as replay
from promptweave.editing.result import Result as Result
from promptweave.editing.sweep import Sweep as Sweep
from promptweave.editing.sweep import sweep as sweep
from promptweave.maps.edit_maps import EditMaps as EditMaps
from promptweave.maps.edit_maps import edit_maps as edit_maps
from promptweave.maps.html_report import html_report as html_report
from promptweave.maps.html_report import write_report as write_report
from promptweave.maps.look import Look as Look
from promptweave.maps.look import look as look
from promptweave.maps.statistics import statistics as statistics
from promptweave.maps.statistics import write_statistics as write_statistics
from promptweave.maps.word_maps import word_maps as word_maps
from promptweave.methods import AttendAndExcite as AttendAndExcite
from promptweave.methods import Consist as Consist
from promptweave.methods import DirectedDiffusion as DirectedDiffusion
from promptweave.methods import FlowEdit as FlowEdit
from promptweave.methods import LocalBlend as LocalBlend
from promptweave.methods import MasaCtrl as MasaCtrl
from promptweave.methods import Pix2PixZero as Pix2PixZero
from promptweave.methods import PlugAndPlay as PlugAndPlay
from promptweave.methods import PromptMixing as PromptMixing
from promptweave.methods import Refine as Refine
from promptweave.methods import Replace as Replace
from promptweave.methods import Reweight as Reweight
from promptweave.methods import SemanticGuidance as SemanticGuidance
from promptweave.methods import SharedStart as SharedStart
from promptweave.methods import SkipLayerGuidance as SkipLayerGuidance
from promptweave.methods import StructuredDiffusion as StructuredDiffusion
from promptweave.models.load import load as load
from promptweave.sampling.loop import Sample as Sample
from promptweave.sampling.loop import noise_for as noise_for
from promptweave.sampling.loop import sample as sample
from promptweave.words import Words as Words
