"""Pictures of attention and of edits."""
