"""The nodes by their names in workflows, and as ComfyUI shows them."""

from .edit_nodes import Edit, EditRecording, Record
from .map_nodes import WordMaps, WordMask
from .option_nodes import JointWindow, LocalBlend, Reweight, Windows

NODE_CLASS_MAPPINGS = {
    "PromptweaveEdit": Edit,
    "PromptweaveRecord": Record,
    "PromptweaveEditRecording": EditRecording,
    "PromptweaveReweight": Reweight,
    "PromptweaveLocalBlend": LocalBlend,
    "PromptweaveWindows": Windows,
    "PromptweaveJointWindow": JointWindow,
    "PromptweaveWordMaps": WordMaps,
    "PromptweaveWordMask": WordMask,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "PromptweaveEdit": "Prompt-to-Prompt edit",
    "PromptweaveRecord": "Record image (Prompt-to-Prompt)",
    "PromptweaveEditRecording": "Edit recorded image (Prompt-to-Prompt)",
    "PromptweaveReweight": "Re-weight words",
    "PromptweaveLocalBlend": "Local blend",
    "PromptweaveWindows": "Attention windows (SD 1, 2, XL)",
    "PromptweaveJointWindow": "Attention window (FLUX)",
    "PromptweaveWordMaps": "Word maps",
    "PromptweaveWordMask": "Mask of a word",
}
