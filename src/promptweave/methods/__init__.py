"""One file per method. Imports only core and words."""

from promptweave.methods.attend_and_excite import AttendAndExcite as AttendAndExcite
from promptweave.methods.consist_edit import Consist as Consist
from promptweave.methods.delta_denoising import ContrastiveDenoising as ContrastiveDenoising
from promptweave.methods.delta_denoising import DeltaDenoising as DeltaDenoising
from promptweave.methods.direct_edit import DirectEdit as DirectEdit
from promptweave.methods.directed_diffusion import DirectedDiffusion as DirectedDiffusion
from promptweave.methods.flow_edit import FlowEdit as FlowEdit
from promptweave.methods.inpaint import Inpaint as Inpaint
from promptweave.methods.kv_edit import KVEdit as KVEdit
from promptweave.methods.local_blend import LocalBlend as LocalBlend
from promptweave.methods.masactrl import MasaCtrl as MasaCtrl
from promptweave.methods.perturbed_attention import PerturbedAttentionGuidance as PerturbedAttentionGuidance
from promptweave.methods.pix2pix_zero import Pix2PixZero as Pix2PixZero
from promptweave.methods.plug_and_play import PlugAndPlay as PlugAndPlay
from promptweave.methods.prompt_mixing import PromptMixing as PromptMixing
from promptweave.methods.prompt_to_prompt import Refine as Refine
from promptweave.methods.prompt_to_prompt import Replace as Replace
from promptweave.methods.reweight import Reweight as Reweight
from promptweave.methods.semantic_guidance import SemanticGuidance as SemanticGuidance
from promptweave.methods.shared_start import SharedStart as SharedStart
from promptweave.methods.skip_layer import SkipLayerGuidance as SkipLayerGuidance
from promptweave.methods.smoothed_energy import SmoothedEnergyGuidance as SmoothedEnergyGuidance
from promptweave.methods.structured_diffusion import StructuredDiffusion as StructuredDiffusion
from promptweave.methods.uniedit_flow import UniEdit as UniEdit
