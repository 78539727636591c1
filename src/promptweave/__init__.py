"""promptweave: see and steer the attention of text-to-image diffusion models.

>>> import promptweave as pw
>>> result = pw.edit("a photo of a cat riding a bike", "a photo of a cat riding a car", steps=2)
>>> result.edited.size
(128, 128)
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

__version__ = "0.2.0"

if _TYPE_CHECKING:
    from promptweave.benchmarks.field_run import Evaluation as Evaluation
    from promptweave.benchmarks.field_run import benchmark as benchmark
    from promptweave.benchmarks.run_report import run_report as run_report
    from promptweave.benchmarks.run_report import write_run_report as write_run_report
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
    from promptweave.editing.found_masks import DiffEditMask as DiffEditMask
    from promptweave.editing.found_masks import WordMask as WordMask
    from promptweave.editing.inpainting import inpaint as inpaint
    from promptweave.editing.invert import invert as invert
    from promptweave.editing.inverted_file import InvertedImage as InvertedImage
    from promptweave.editing.masks import read_mask as read_mask
    from promptweave.editing.options import PromptToPrompt as PromptToPrompt
    from promptweave.editing.recipe import Recipe as Recipe
    from promptweave.editing.record import Recording as Recording
    from promptweave.editing.replay import replay as replay
    from promptweave.editing.result import Result as Result
    from promptweave.editing.settings import Settings as Settings
    from promptweave.editing.sweep import Sweep as Sweep
    from promptweave.editing.sweep import sweep as sweep
    from promptweave.evaluate.edit_pairs import EditPair as EditPair
    from promptweave.finding.find import find as find
    from promptweave.finding.found import Found as Found
    from promptweave.maps.concept_attention import ConceptAttention as ConceptAttention
    from promptweave.maps.edit_maps import EditMaps as EditMaps
    from promptweave.maps.edit_maps import edit_maps as edit_maps
    from promptweave.maps.html_report import html_report as html_report
    from promptweave.maps.html_report import write_report as write_report
    from promptweave.maps.look import Look as Look
    from promptweave.maps.look import look as look
    from promptweave.maps.segmentation import Segmentation as Segmentation
    from promptweave.maps.segmentation import segment as segment
    from promptweave.maps.statistics import statistics as statistics
    from promptweave.maps.statistics import write_statistics as write_statistics
    from promptweave.maps.word_maps import word_maps as word_maps
    from promptweave.methods import AttendAndExcite as AttendAndExcite
    from promptweave.methods import Consist as Consist
    from promptweave.methods import ContrastiveDenoising as ContrastiveDenoising
    from promptweave.methods import DeltaDenoising as DeltaDenoising
    from promptweave.methods import DirectedDiffusion as DirectedDiffusion
    from promptweave.methods import DirectEdit as DirectEdit
    from promptweave.methods import FlowEdit as FlowEdit
    from promptweave.methods import Inpaint as Inpaint
    from promptweave.methods import KVEdit as KVEdit
    from promptweave.methods import LocalBlend as LocalBlend
    from promptweave.methods import MasaCtrl as MasaCtrl
    from promptweave.methods import PerturbedAttentionGuidance as PerturbedAttentionGuidance
    from promptweave.methods import Pix2PixZero as Pix2PixZero
    from promptweave.methods import PlugAndPlay as PlugAndPlay
    from promptweave.methods import PromptMixing as PromptMixing
    from promptweave.methods import Refine as Refine
    from promptweave.methods import Replace as Replace
    from promptweave.methods import Reweight as Reweight
    from promptweave.methods import SemanticGuidance as SemanticGuidance
    from promptweave.methods import SharedStart as SharedStart
    from promptweave.methods import SkipLayerGuidance as SkipLayerGuidance
    from promptweave.methods import SmoothedEnergyGuidance as SmoothedEnergyGuidance
    from promptweave.methods import StructuredDiffusion as StructuredDiffusion
    from promptweave.methods import UniEdit as UniEdit
    from promptweave.models.load import load as load
    from promptweave.perception.captioning import caption as caption
    from promptweave.perception.perceive import Perceived as Perceived
    from promptweave.perception.perceive import perceive as perceive
    from promptweave.sampling.loop import Sample as Sample
    from promptweave.sampling.loop import noise_for as noise_for
    from promptweave.sampling.loop import sample as sample
    from promptweave.translation.translator import Translator as Translator
    from promptweave.translation.translator import net2net as net2net
    from promptweave.words import Words as Words

# The same at run time: a module is imported when one of its names is first used, so that the command line answers
# `--help` and a mistyped option without loading torch. Names that are not listed are those of `methods`.
_HOMES = {
    "benchmarks.field_run": "Evaluation benchmark",
    "benchmarks.run_report": "run_report write_run_report",
    "core.clock": "Step Window",
    "core.control": "Control Hooks NoEffect",
    "core.record_maps": "RecordMaps",
    "core.site": "Site Sites",
    "editing.edit": "edit generate record run run_many",
    "editing.found_masks": "DiffEditMask WordMask",
    "editing.inpainting": "inpaint",
    "editing.invert": "invert",
    "editing.inverted_file": "InvertedImage",
    "editing.masks": "read_mask",
    "editing.options": "PromptToPrompt",
    "editing.recipe": "Recipe",
    "editing.record": "Recording",
    "editing.replay": "replay",
    "editing.result": "Result",
    "editing.settings": "Settings",
    "editing.sweep": "Sweep sweep",
    "finding.find": "find",
    "finding.found": "Found",
    "evaluate.edit_pairs": "EditPair",
    "maps.concept_attention": "ConceptAttention",
    "maps.edit_maps": "EditMaps edit_maps",
    "maps.html_report": "html_report write_report",
    "maps.look": "Look look",
    "maps.segmentation": "Segmentation segment",
    "maps.statistics": "statistics write_statistics",
    "maps.word_maps": "word_maps",
    "models.load": "load",
    "perception.captioning": "caption",
    "perception.perceive": "Perceived perceive",
    "sampling.loop": "Sample noise_for sample",
    "translation.translator": "Translator net2net",
    "words": "Words",
}
_PLACES = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> _Any:
    if name in _PLACES or name[0].isupper():
        value = getattr(_import_module(f"promptweave.{_PLACES.get(name, 'methods')}"), name)
        globals()[name] = value
        return value
    try:  # a room, such as promptweave.editing
        return _import_module(f"promptweave.{name}")
    except ModuleNotFoundError as missing:
        if missing.name != f"promptweave.{name}":
            raise
        raise AttributeError(f"module 'promptweave' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    methods = vars(_import_module("promptweave.methods"))
    return sorted({"__version__", "__doc__", *_PLACES, *(name for name in methods if name[0].isupper())})
