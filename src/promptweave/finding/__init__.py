"""The strength finder: which settings of an edit change what they should and keep the rest."""
