"""The synthetic world: scenes as data, their pictures, their captions, and the recipe of the embedded model."""
