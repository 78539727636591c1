"""Drawing of attention maps and of edits."""
