"""Drawing: sheets, heat maps, curves and animations."""
