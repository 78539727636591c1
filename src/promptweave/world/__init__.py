"""The synthetic world: scenes as data, their images, their captions, and the recipe of the embedded model."""
